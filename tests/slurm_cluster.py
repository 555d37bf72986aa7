"""A cluster of this machine: a real Slurm with two nodes, in a folder of its own, for as long as tests need it."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

COMMANDS: Final = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
NODES: Final = ("n1", "n2")
START_SECONDS: Final = 40.0
NO_CGROUPS_SINCE: Final = (23, 2)
CONFIGURATION: Final = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MailProg=/bin/true
ReturnToService=2
KillWait=2
MinJobAge=20
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=short Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurmError(Exception):
    """Why there is no cluster."""


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Gives the environment in which Slurm's commands speak to a cluster of two nodes.

    Args:
        folder: Of all its files; its name must be short, because a socket lies in it.

    Raises:
        NoSlurmError: When Slurm is not installed, or does not start here.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if missing := [command for command in COMMANDS if shutil.which(command, path=path) is None]:
        raise NoSlurmError(f"{', '.join(missing)} must be installed; Debian's packages are slurm-wlm and munge")
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    write_configuration(folder, environment)
    key = folder / "munge.key"
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("log", "pid", "seed")]
    commands = [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    with contextlib.ExitStack() as stack:
        for command in commands:
            stack.enter_context(running(command, environment, folder))
            if command is munged:
                wait_until_there(folder / "munge.socket")
        wait_until_idle(environment, folder)
        stack.callback(subprocess.run, ["scancel", f"--user={getpass.getuser()}"], env=environment, check=False)
        yield environment


def write_configuration(folder: Path, environment: dict[str, str]) -> None:
    """Fills the folder with what Slurm reads."""
    folder.chmod(0o755)  # munge asks for no less of the folder of its socket
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(1 + len(NODES))]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in sockets]
    text = CONFIGURATION.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=ports)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    is_old = read_version(environment) < NO_CGROUPS_SINCE
    plugin = "cgroup/v1" if is_old else "disabled"  # none is needed, but one must be named
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n", encoding="utf-8")
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)


def read_version(environment: dict[str, str]) -> tuple[int, ...]:
    """Returns the version of Slurm, such as 22 and 5."""
    said = subprocess.run(["slurmctld", "-V"], env=environment, capture_output=True, text=True, check=True)
    return tuple(int(part) for part in said.stdout.split()[-1].split(".")[:2])


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Within the block a daemon runs."""
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_there(path: Path) -> None:
    """Returns when a file is there."""
    end = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise NoSlurmError(f"munged does not start here: {read_end(path.parent)}")
        time.sleep(0.05)


def wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    """Returns when all nodes wait for jobs."""
    end, said = time.monotonic() + START_SECONDS, ""
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    while time.monotonic() < end:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if found.stdout.split() == ["idle"] * len(NODES):
            return
        said = found.stdout + found.stderr
        time.sleep(0.2)
    raise NoSlurmError(f"Slurm does not start here: {' '.join(said.split())}; {read_end(folder)}")


def read_end(folder: Path) -> str:
    """Returns the last words of the daemons."""
    logs = [folder / "output", *folder.glob("*.log")]
    return "; ".join(log.read_text(errors="replace").strip().splitlines()[-1] for log in logs if log.stat().st_size)
