"""An experiment is a folder: plan, train, record; resume by the same command; verify from the files alone."""
