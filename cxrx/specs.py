"""What plugins hand over: plain data that describes models, explainers, readers, data sets, metrics and exporters.

Specs are cheap to make and to list. Whatever is heavy (torch, h5py, weights) is imported inside the callables
``build``, ``open``, ``compute`` and ``write``, so that listing every plugin costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

Activation = Literal["sigmoid", "softmax"]
Score = Literal["log-odds", "logit"]
"""What a map explains; see :meth:`cxrx.models.model.Model.explaining`."""
Channels = Literal[1, 3]


# ---------------------------------------------------------------------------------------------------------------------
# Films


@dataclass(frozen=True, slots=True)
class Film:
    """One decoded radiograph.

    Attributes
    ----------
    pixels
        ``(rows, columns)`` float32 in [0, 1]; 0 is black (air), 1 is white (bone), whatever the file's photometric
        interpretation was.
    sha256
        Hex digest of the file's (or archive member's) bytes; the film's identity is derived from it.
    member
        Name inside the container the film came from (zip, tar); empty for a plain file.
    view
        ``"PA"``, ``"AP"``, ``"FRONTAL"``, ``"LATERAL"``, ``"OBLIQUE"`` or ``""`` where the file does not tell.
    uid, patient
        SOPInstanceUID and a patient key. Both are for matching in memory and for the private link table only.
    decoder
        Name and version of what decoded the pixels, e.g. ``"pillow 12.0.0"``.
    flags
        Sentences on what was odd, without patient data. A film with flags is processed and marked.
    synthetic
        Whether ``cxrx phantom`` made it.

    Examples
    --------
    >>> import cxrx, numpy as np
    >>> film = cxrx.Film(np.zeros((8, 8), dtype=np.float32), sha256="", view="PA", decoder="mine 1.0")
    >>> film.pixels.shape, film.flags
    ((8, 8), ())
    """

    pixels: FloatArray
    sha256: str
    member: str = ""
    view: str = ""
    uid: str = ""
    patient: str = ""
    decoder: str = ""
    flags: tuple[str, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file (or member) that gave no film.

    Attributes
    ----------
    kind
        ``"skipped"`` for what is not a chest film (no failure), ``"failed"`` for a film that could not be read.
    code
        A short stable word for the cause, e.g. ``"truncated"``, ``"not-dicom"``, ``"over-limit"``.
    message
        One sentence without patient data and without the path.
    sha256
        Digest of the bytes, empty where they could not be read.

    Examples
    --------
    >>> import cxrx
    >>> cxrx.Unreadable("failed", "truncated", "the pixels end after 3 of 8 rows").code
    'truncated'
    """

    kind: Literal["skipped", "failed"]
    code: str
    message: str
    sha256: str = ""
    member: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# Models


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model expects to see; the geometry is applied in the decode workers, the rest beside the model.

    Attributes
    ----------
    size
        ``(height, width)`` of the network's input in pixels.
    resize
        Short side in pixels before the centre crop, as in ``Resize(256), CenterCrop(224)``; None: the crop fills
        `size` exactly. Only with ``fit="crop"``.
    fit
        ``"crop"``: keep the aspect ratio and crop the centre; ``"pad"``: keep it and pad with black; ``"stretch"``.
    interpolation
        ``"bilinear"`` or ``"bicubic"``, always antialiased.
    channels
        1, or 3 for the grey picture repeated.
    mean, std
        Of pixels in [0, 1], one value per channel (or one for all).
    clahe
        ``(clip limit, rows, columns)`` of contrast-limited adaptive histogram equalisation over that many tiles, as
        OpenCV does it, on 8-bit grey, after the resize and before the crop or the padding. None where training did
        without.
    crops
        1, or 10: the four corners and the centre of the resized film and of its mirror image, each of `size`, over
        which the prediction is averaged. Only with ``fit="crop"`` and a `resize` of at least `size`.

    Examples
    --------
    >>> import cxrx
    >>> spec = cxrx.InputSpec(size=(512, 512), channels=1, mean=(0.5,), std=(0.25,))
    >>> spec.fit, spec.interpolation, spec.crops
    ('crop', 'bilinear', 1)
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Channels = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    clahe: tuple[float, int, int] | None = None
    crops: Literal[1, 10] = 1


@dataclass(frozen=True)
class ModelSpec:
    """A classifier that can be built by name.

    Attributes
    ----------
    name
        ``"densenet121"``; the registry prefixes the owner.
    build
        ``build(labels) -> torch.nn.Module`` with one output per label (one or two for a single binary label).
    labels
        The findings it is trained for, in the order of its outputs; empty where only a checkpoint can tell.
    input
        What it expects to see.
    output
        ``"logits"``, or ``"probabilities"`` for a network that ends in a sigmoid (cxrx takes the logit back).
    activation
        ``"sigmoid"`` (multi-label) or ``"softmax"``.
    cam_layer
        Dotted name of the layer that CAM methods read; None: found by architecture.
    weights
        File that belongs to the model, or its public address (``https://``), fetched when first needed, or a function
        that returns the file (another package's loader); None: random until ``--weights`` names one.
    weights_sha256
        Hex digest of that file; required with an address.
    build_variant
        Like `build`, with keywords that a checkpoint or the user ask for, where it has such variants: ``outputs``,
        ``in_chans``, ``img_size`` ``(height, width)``, ``global_pool`` (``"token"`` or ``"avg"``), ``head``
        (``"norm-linear"``: dropout, layer norm, linear). None: there is one network only.
    demo
        Trained on synthetic films only; every output then says so.

    Examples
    --------
    >>> import cxrx
    >>> def build(labels):
    ...     from torch import nn  # imported when the model is built, not when it is listed
    ...     return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(labels)))
    >>> spec = cxrx.ModelSpec("tiny", build, labels=("Mass", "Nodule"), input=cxrx.InputSpec())
    >>> spec.build(spec.labels)[-1]
    Linear(in_features=4, out_features=2, bias=True)
    """

    name: str
    build: Callable[[Sequence[str]], Any]
    labels: tuple[str, ...]
    input: InputSpec
    output: Literal["logits", "probabilities"] = "logits"
    activation: Activation = "sigmoid"
    cam_layer: str | None = None
    weights: Path | str | Callable[[], Path] | None = None
    weights_sha256: str = ""
    build_variant: Callable[..., Any] | None = None
    aliases: tuple[str, ...] = ()
    summary: str = ""
    licence: str = ""
    citation: str = ""
    demo: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# Explainers


@dataclass
class Maps:
    """What an explainer returns.

    Attributes
    ----------
    values
        ``(B, T, h, w)`` float32 tensor on the method's native grid; signed where the method is signed.
    extras
        Named tensors of shape ``(B, T, ...)`` worth keeping, e.g. ``achieved_area``.

    Examples
    --------
    >>> import cxrx, torch
    >>> maps = cxrx.Maps(torch.zeros(2, 3, 8, 8), extras={"achieved_area": torch.zeros(2, 3)})
    >>> maps.values.shape
    torch.Size([2, 3, 8, 8])
    """

    values: Any
    extras: dict[str, Any] = field(default_factory=dict)


class Explainer(Protocol):
    """A built explainer: a callable, stateless between calls."""

    def __call__(self, model: Any, x: Any, targets: Any, seeds: Any) -> Maps:
        """Explain findings of a batch.

        Parameters
        ----------
        model
            A :class:`cxrx.models.model.Model`.
        x
            ``(B, C, H, W)`` float32, the model's input.
        targets
            ``(B, T)`` int64, indices of findings; -1 is empty.
        seeds
            ``(B,)`` int64.
        """
        ...


@dataclass(frozen=True)
class ExplainerSpec:
    """An attribution method.

    Attributes
    ----------
    build
        ``build(options) -> Explainer``.
    options
        A frozen dataclass type whose fields all have defaults; ``-O name=value`` sets them.
    needs
        What the model must offer: any of ``"gradients"``, ``"cam"`` (a spatial layer), ``"attention"``,
        ``"relevance"`` (plain transformer blocks), ``"convolutions"`` (with biases).
    stochastic
        Whether the map depends on the seed.
    signed
        Whether negative values mean evidence against the finding.
    relu
        Whether the published form of the method shows max(values, 0) on the native grid; metrics and overlays do so.
    space
        ``"native"`` for a coarse grid, ``"input"`` for one value per input pixel.
    control
        A baseline that never looks at the model.
    evaluations
        ``evaluations(options)``: at most how many forward and backward passes a film and finding cost. The
        number of films a call is made from it; None: one.
    per_finding
        Whether each finding has a map of its own; False: one map of a film for all of them.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import cxrx, torch
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     power: float = 1.0
    >>> def build(options):
    ...     def explain(model, x, targets, seeds):
    ...         grey = x.mean(dim=1, keepdim=True) ** options.power  # (B, 1, H, W)
    ...         return cxrx.Maps(grey.expand(-1, targets.shape[1], -1, -1))
    ...     return explain
    >>> spec = cxrx.ExplainerSpec("brightness", build, Options, needs=frozenset(), space="input", control=True)
    >>> explain = spec.build(spec.options(power=2))
    >>> explain(None, torch.ones(2, 1, 8, 8), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2)).values.shape
    torch.Size([2, 3, 8, 8])
    """

    name: str
    build: Callable[[Any], Explainer]
    options: type
    needs: frozenset[str] = frozenset({"gradients"})
    stochastic: bool = False
    aliases: tuple[str, ...] = ()
    summary: str = ""
    citation: str = ""
    signed: bool = False
    relu: bool = False
    space: Literal["native", "input"] = "native"
    control: bool = False
    evaluations: Callable[[Any], float] | None = None
    per_finding: bool = True


# ---------------------------------------------------------------------------------------------------------------------
# Readers, data sets, metrics, exporters


@dataclass(frozen=True)
class ReaderSpec:
    """A file format.

    Attributes
    ----------
    sniff
        ``sniff(path, head)``: whether this is a file of the format, by its path and its first 512 bytes. Formats are
        asked one after the other, the built-in ones first.
    open
        ``open(path)`` yields the films of a file, one or several. A film without a ``sha256`` gets one from that of
        the file and its ``member`` (or its number in the file), so both must be the same at every reading.
    decode
        ``decode(data, options)``: for a format whose file is one film, the film of these bytes; `options` is a
        :class:`~cxrx.reading.options.ReadOptions`. With it films are read from archives too, and are not read again
        to find out that they are done. None: `open` is used, and files in archives are left alone.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx, numpy as np
    >>> def open_npy(path):
    ...     for number, pixels in enumerate(np.load(path)):  # several films a file
    ...         yield cxrx.Film(pixels, sha256="", member=str(number), decoder="numpy")
    >>> spec = cxrx.ReaderSpec("npy", lambda path, head: head[1:6] == b"NUMPY", open_npy)
    >>> np.save("films.npy", np.zeros((2, 8, 8), dtype=np.float32))
    >>> path = Path("films.npy")
    >>> spec.sniff(path, path.read_bytes()[:512]), [film.member for film in spec.open(path)]
    (True, ['0', '1'])
    """

    name: str
    sniff: Callable[[Path, bytes], bool]
    open: Callable[[Path], Iterator[Film | Unreadable]]
    summary: str = ""
    decode: Callable[[bytes, Any], Film | Unreadable] | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in source pixels: `x`, `y` of the upper left corner, `width`, `height`."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The pixels of one finding, run-length encoded as COCO does it.

    Attributes
    ----------
    shape
        ``(rows, columns)`` of the source picture.
    counts
        Lengths of the runs in column-major order (down the first column, then the next), by turns absent and present,
        absent first (which may be 0); they add up to rows times columns. ``cxrx.datasets.rle`` makes them from the
        usual encodings.
    """

    finding: str
    shape: tuple[int, int]
    counts: NDArray[np.uint32]

    def decode(self) -> NDArray[np.bool_]:
        """Return the ``(rows, columns)`` mask."""
        import numpy as np

        present = np.arange(len(self.counts)) % 2 == 1
        pixels: NDArray[np.bool_] = np.repeat(present, self.counts).reshape(self.shape[::-1]).T
        return pixels


Split = Literal["", "train", "valid", "test", "train+valid"]
"""What a film is for; ``"train+valid"`` where a list leaves it to its reader to take the validation films from it."""


@dataclass(frozen=True, slots=True)
class FilmTruth:
    """What is known about one film from tables beside it.

    Attributes
    ----------
    labels
        Finding to 1 (present), 0 (absent) or -1 (uncertain); a finding that is not a key is unknown. Not to be changed:
        films may share it.
    boxes, masks
        In source pixels.
    patient, view
        Empty where the tables do not tell. The patient key stays in memory and in the private link table.
    split
        The official one; empty where there is none.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    patient: str = ""
    view: str = ""
    masks: tuple[Mask, ...] = ()
    split: Split = ""


class Dataset(Protocol):
    """Labels, boxes, masks and patients of a folder of films."""

    name: str
    findings: tuple[str, ...]

    def truth(self, relative_path: str) -> FilmTruth | None:
        """Return what is known of the film at `relative_path` (posix, relative to the folder), or None."""
        ...


@dataclass(frozen=True)
class DatasetSpec:
    """A data set layout: `sniff` recognises the folder, `open` reads its tables.

    A layout of a plugin goes before the built-in ones, and where it recognises a folder its data set alone speaks. Its
    data set may have a list ``problems`` of sentences, which are shown to the user. The built-in layouts are an
    exception to this hook: their tables may lie together in one folder and are read together
    (:func:`cxrx.datasets.discover`), so that their specs only list and recognise them.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx
    >>> from cxrx.specs import FilmTruth
    >>> class ByName:
    ...     name, findings = "by-name", ("Mass",)
    ...     def truth(self, relative_path):
    ...         return FilmTruth({"Mass": int("mass" in relative_path)})
    >>> spec = cxrx.DatasetSpec("by-name", lambda folder: (folder / "by-name.txt").exists(), lambda folder: ByName())
    >>> spec.sniff(Path()), spec.open(Path()).truth("films/mass_01.png").labels
    (False, {'Mass': 1})
    """

    name: str
    sniff: Callable[[Path], bool]
    open: Callable[[Path], Dataset]
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """What one number of a metric is.

    Attributes
    ----------
    sentence
        How it is computed; it stands beside the number in the report.
    higher_is_better
        Its direction. None: it describes and does not judge a map (a size, a share of a baseline), so that it stands
        in the tables, and no test or verdict is made of it.
    unit
        ``""`` for what may be compared between models; else its unit, ``"logits"``, of which every model has its own
        scale, so that it is compared between methods of one model only.

    Examples
    --------
    >>> import cxrx
    >>> cxrx.Measure("mean absolute error", higher_is_better=False).unit
    ''
    """

    sentence: str = ""
    higher_is_better: bool | None = True
    unit: str = ""


@dataclass(frozen=True)
class MetricSpec:
    """Numbers that judge or compare maps.

    Attributes
    ----------
    compute
        By kind: ``"localisation"`` (map ``(h, w)``, truth ``(H, W)`` bool) -> dict of floats; ``"agreement"`` (a, b)
        -> dict of floats; ``"faithfulness"`` (model, x ``(B, C, H, W)``, maps ``(B, T, h, w)``, targets ``(B, T)``,
        tensors) -> dict of ``(B, T)``. The keys become names of
        metrics in the tables; one that another metric has already is left out, with a warning.
    measures
        Key to what its number is. Of a key that is not here, higher is better and the summary tells what it is.
    citation
        Where it comes from.
    suites
        In which of ``compare --metrics auto``, ``fast`` (which never runs the model) and ``full`` it is computed
        without being named.

    Notes
    -----
    Built-in metrics are registered through the same hook, and their `compute` takes and gives what any does. But
    ``cxrx compare`` computes them for many maps at once, with the same numbers: localisation by ``--protocol``,
    agreement with every map ranked once, a :class:`cxrx.compare.faithfulness.family.Family` with the passes that
    methods share run once. A plugin may register a Family too; any other metric is called map by map (faithfulness:
    batch by batch).

    Examples
    --------
    >>> import cxrx, numpy as np
    >>> def cosine(a, b):
    ...     return {"cosine": float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))}
    >>> spec = cxrx.MetricSpec("cosine", "agreement", cosine, "cosine of the angle between two maps")
    >>> spec.compute(np.eye(8), 2 * np.eye(8))
    {'cosine': 1.0}
    """

    name: str
    kind: Literal["localisation", "agreement", "faithfulness"]
    compute: Callable[..., dict[str, Any]]
    summary: str = ""
    measures: Mapping[str, Measure] = field(default_factory=dict, hash=False)
    citation: str = ""
    suites: tuple[str, ...] = ("auto", "fast", "full")

    def measure(self, key: str) -> Measure:
        """Return what the number called `key` is."""
        return self.measures.get(key) or Measure(self.summary)


@dataclass(frozen=True)
class ExporterSpec:
    """Writes results in another format.

    Attributes
    ----------
    suffix
        Of what is written, where the user does not name it: ``results.h5`` becomes ``results`` and this.
    write
        ``write(results, out, **options)``: open results, the file or folder, and the fields of `options` as keywords.
        Where it names ``films``, it gets :class:`cxrx.export.films.Films`: pictures, maps on their pixels, affines,
        truth and names of the films. One without them gets ``images`` (a folder of moved films) and ``share`` (leave
        file names out) where it names them, or takes ``**options`` and the user asked. A file with names of films in
        it should be its owner's only (mode 0600).
    options
        A frozen dataclass type whose fields all have defaults; ``-O name=value`` sets them. None: there are no options.

    Examples
    --------
    >>> import cxrx
    >>> def write(results, out):
    ...     results.predictions().to_json(out, orient="records", lines=True)
    >>> cxrx.ExporterSpec("jsonl", ".jsonl", write, "predictions, one a line").suffix
    '.jsonl'
    """

    name: str
    suffix: str
    write: Callable[..., None]
    summary: str = ""
    options: type | None = None
