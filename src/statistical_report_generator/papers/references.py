"""The papers that methods are from, as BibTeX; docs/references.md has them all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True)
class Reference:
    """A paper.

    Attributes:
        cited: In the words of a text, such as "Frankle & Carbin 2019".
        authors: In BibTeX's form.
        title: Words that keep their capitals in braces.
        year: Of publication.
        venue: The fields that say where: `booktitle`, `journal`, `volume`.
        arxiv: Its id; None where it has none.
    """

    cited: str
    authors: str
    title: str
    year: int
    venue: tuple[tuple[str, str], ...]
    arxiv: str | None = None


def _at(conference: str) -> tuple[tuple[str, str], ...]:
    return (("booktitle", conference),)


def _in(journal: str, volume: int) -> tuple[tuple[str, str], ...]:
    return (("journal", journal), ("volume", str(volume)))


ICLR: Final = _at("International Conference on Learning Representations")
ICML: Final = _at("International Conference on Machine Learning")
NEURIPS: Final = _at("Advances in Neural Information Processing Systems")
CVPR: Final = _at("IEEE/CVF Conference on Computer Vision and Pattern Recognition")

REFERENCES: Final = {
    "frankle2019lottery": Reference(
        "Frankle & Carbin 2019",
        "Frankle, Jonathan and Carbin, Michael",
        "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
        2019,
        ICLR,
        "1803.03635",
    ),
    "frankle2019stabilizing": Reference(
        "Frankle et al. 2019",
        "Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael",
        "Stabilizing the Lottery Ticket Hypothesis",
        2019,
        (("journal", "arXiv preprint"),),
        "1903.01611",
    ),
    "frankle2020linear": Reference(
        "Frankle et al. 2020",
        "Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael",
        "Linear Mode Connectivity and the Lottery Ticket Hypothesis",
        2020,
        ICML,
        "1912.05671",
    ),
    "renda2020comparing": Reference(
        "Renda et al. 2020",
        "Renda, Alex and Frankle, Jonathan and Carbin, Michael",
        "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
        2020,
        ICLR,
        "2003.02389",
    ),
    "su2020sanity": Reference(
        "Su et al. 2020",
        "Su, Jingtong and Chen, Yihang and Cai, Tianle and Wu, Tianhao and Gao, Ruiqi and Wang, Liwei and "
        "Lee, Jason D.",
        "Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot",
        2020,
        NEURIPS,
        "2009.11094",
    ),
    "frankle2021pruning": Reference(
        "Frankle et al. 2021",
        "Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael",
        "Pruning Neural Networks at Initialization: Why are We Missing the Mark?",
        2021,
        ICLR,
        "2009.08576",
    ),
    "you2020drawing": Reference(
        "You et al. 2020",
        "You, Haoran and Li, Chaojian and Xu, Pengfei and Fu, Yonggan and Wang, Yue and Chen, Xiaohan and "
        "Baraniuk, Richard G. and Wang, Zhangyang and Lin, Yingyan",
        "Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks",
        2020,
        ICLR,
        "1909.11957",
    ),
    "li2018visualizing": Reference(
        "Li et al. 2018",
        "Li, Hao and Xu, Zheng and Taylor, Gavin and Studer, Christoph and Goldstein, Tom",
        "Visualizing the Loss Landscape of Neural Nets",
        2018,
        NEURIPS,
        "1712.09913",
    ),
    "goodfellow2015qualitatively": Reference(
        "Goodfellow et al. 2015",
        "Goodfellow, Ian J. and Vinyals, Oriol and Saxe, Andrew M.",
        "Qualitatively Characterizing Neural Network Optimization Problems",
        2015,
        ICLR,
        "1412.6544",
    ),
    "han2015learning": Reference(
        "Han et al. 2015",
        "Han, Song and Pool, Jeff and Tran, John and Dally, William J.",
        "Learning Both Weights and Connections for Efficient Neural Networks",
        2015,
        NEURIPS,
        "1506.02626",
    ),
    "kirkpatrick2017overcoming": Reference(
        "Kirkpatrick et al. 2017",
        "Kirkpatrick, James and Pascanu, Razvan and Rabinowitz, Neil and Veness, Joel and others",
        "Overcoming Catastrophic Forgetting in Neural Networks",
        2017,
        _in("Proceedings of the National Academy of Sciences", 114),
        "1612.00796",
    ),
    "molchanov2019importance": Reference(
        "Molchanov et al. 2019",
        "Molchanov, Pavlo and Mallya, Arun and Tyree, Stephen and Frosio, Iuri and Kautz, Jan",
        "Importance Estimation for Neural Network Pruning",
        2019,
        CVPR,
        "1906.10771",
    ),
    "lee2019snip": Reference(
        "Lee et al. 2019",
        "Lee, Namhoon and Ajanthan, Thalaiyasingam and Torr, Philip H. S.",
        "{SNIP}: Single-shot Network Pruning based on Connection Sensitivity",
        2019,
        ICLR,
        "1810.02340",
    ),
    "wang2020picking": Reference(
        "Wang et al. 2020",
        "Wang, Chaoqi and Zhang, Guodong and Grosse, Roger",
        "Picking Winning Tickets Before Training by Preserving Gradient Flow",
        2020,
        ICLR,
        "2002.07376",
    ),
    "tanaka2020pruning": Reference(
        "Tanaka et al. 2020",
        "Tanaka, Hidenori and Kunin, Daniel and Yamins, Daniel L. K. and Ganguli, Surya",
        "Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow",
        2020,
        NEURIPS,
        "2006.05467",
    ),
    "sun2024simple": Reference(
        "Sun et al. 2024",
        "Sun, Mingjie and Liu, Zhuang and Bair, Anna and Kolter, J. Zico",
        "A Simple and Effective Pruning Approach for Large Language Models",
        2024,
        ICLR,
        "2306.11695",
    ),
    "sanh2020movement": Reference(
        "Sanh et al. 2020",
        "Sanh, Victor and Wolf, Thomas and Rush, Alexander M.",
        "Movement Pruning: Adaptive Sparsity by Fine-Tuning",
        2020,
        NEURIPS,
        "2005.07683",
    ),
    "evci2020rigging": Reference(
        "Evci et al. 2020",
        "Evci, Utku and Gale, Trevor and Menick, Jacob and Castro, Pablo Samuel and Elsen, Erich",
        "Rigging the Lottery: Making All Tickets Winners",
        2020,
        ICML,
        "1911.11134",
    ),
    "lee2021layer": Reference(
        "Lee et al. 2021",
        "Lee, Jaeho and Park, Sejun and Mo, Sangwoo and Ahn, Sungsoo and Shin, Jinwoo",
        "Layer-adaptive Sparsity for the Magnitude-based Pruning",
        2021,
        ICLR,
        "2010.07611",
    ),
    "xiao2017fashion": Reference(
        "Xiao et al. 2017",
        "Xiao, Han and Rasul, Kashif and Vollgraf, Roland",
        "{Fashion-MNIST}: A Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        2017,
        (("journal", "arXiv preprint"),),
        "1708.07747",
    ),
    "he2016deep": Reference(
        "He et al. 2016",
        "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
        "Deep Residual Learning for Image Recognition",
        2016,
        CVPR,
        "1512.03385",
    ),
    "holm1979simple": Reference(
        "Holm 1979",
        "Holm, Sture",
        "A Simple Sequentially Rejective Multiple Test Procedure",
        1979,
        _in("Scandinavian Journal of Statistics", 6),
    ),
    "schuirmann1987comparison": Reference(
        "Schuirmann 1987",
        "Schuirmann, Donald J.",
        "A Comparison of the Two One-sided Tests Procedure and the Power Approach for Assessing the Equivalence of "
        "Average Bioavailability",
        1987,
        _in("Journal of Pharmacokinetics and Biopharmaceutics", 15),
    ),
    "berger1982multiparameter": Reference(
        "Berger 1982",
        "Berger, Roger L.",
        "Multiparameter Hypothesis Testing and Acceptance Sampling",
        1982,
        _in("Technometrics", 24),
    ),
}


def render_bibtex(keys: Iterable[str]) -> str:
    """Returns the entries of papers as BibTeX, in the order of their keys.

    Args:
        keys: Of `REFERENCES`.

    Examples:
        >>> print(render_bibtex(["holm1979simple"]))
        @article{holm1979simple,
          author = {Holm, Sture},
          title = {A Simple Sequentially Rejective Multiple Test Procedure},
          year = {1979},
          journal = {Scandinavian Journal of Statistics},
          volume = {6},
        }
        <BLANKLINE>
    """
    return "\n".join(_render(key, REFERENCES[key]) for key in sorted(set(keys)))


def _render(key: str, reference: Reference) -> str:
    kind = "inproceedings" if dict(reference.venue).get("booktitle") else "article"
    fields = {
        "author": reference.authors,
        "title": reference.title,
        "year": str(reference.year),
        **dict(reference.venue),
    }
    if reference.arxiv is not None:
        fields |= {"eprint": reference.arxiv, "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])
