"""Images in folders by class: `<part>/<class>/<image>`. The sorted names of the classes are the labels 0, 1, ...

Dims: N images, C channels, H height, W width.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch

from ocd_core.errors import UserError
from ocd_core.tasks.data_files import identity, refuse_repeated
from ocd_core.tasks.image_files import image_bytes
from ocd_core.tasks.images.sources import EncodedPictures, Shape

_Images = dict[str, list[Path]]  # class -> its images
_NAMED = 5  # classes that an error names


def read_folders(
    path: Path, parts: Mapping[str, Sequence[str]], shape: Shape, classes: int
) -> tuple[dict[str, EncodedPictures], list[str]]:
    """Parts of a data set in folders, each with one folder per class.

    Names that begin with a dot are skipped; everything else must be as expected. The images of a part are sorted by
    class, then by path.

    Args:
        path: a folder.
        parts: part -> names of folders inside `path`; several are read as one.
        shape: what every image must be.
        classes: the number of classes.

    Returns:
        the images of each part, and the names of the classes, sorted.

    Raises:
        UserError: a folder does not exist, a class has no images, the training part does not have all classes, the
            number of classes differs from `classes`, or an image is named twice.
    """
    found = {part: _images(path, part, folders) for part, folders in parts.items()}
    names = sorted(found["train"])
    for part, images in found.items():
        unknown = sorted(set(images) - set(names))
        if unknown:
            raise UserError(
                f"{path}: the {part} part has the class {unknown[0]!r}, which the train part has not; the train part "
                "must have every class"
            )
    if len(names) != classes:
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        raise UserError(f"{path}: the train part has {len(names)} classes ({shown}); set data.classes to that number")
    refuse_repeated(
        {part: [(str(image.relative_to(path)), identity(image)) for image in _all(images)]
         for part, images in found.items()},
        parts,
    )  # fmt: skip
    return {part: _read(images, names, shape) for part, images in found.items()}, names


def _images(path: Path, part: str, folders: Sequence[str]) -> _Images:
    """The images of each class of a part."""
    found: _Images = {}
    for name in folders:
        key = f"data.{part}_files"
        if not name or Path(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{key}: {name!r} must be the name of a folder inside data.path")
        folder = path / name
        if not folder.is_dir():
            raise UserError(f"{key}: {folder} does not exist or is not a folder")
        for inside in _visible(folder):
            if not inside.is_dir():
                raise UserError(f"{inside} is not in the folder of a class; move it or remove it")
            images = _visible(inside)
            if not images:
                raise UserError(f"{inside} holds no images; add some, or remove the folder of this class")
            found.setdefault(inside.name, []).extend(images)
    if not found:
        raise UserError(f"data.{part}_files ({', '.join(folders)}): no folders of classes in {path}")
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _all(images: _Images) -> Iterator[Path]:
    for name in sorted(images):
        yield from images[name]


def _read(images: _Images, names: Sequence[str], shape: Shape) -> EncodedPictures:
    label = {name: index for index, name in enumerate(names)}
    labels = [label[name] for name in sorted(images) for _ in images[name]]
    files = list(_all(images))
    return EncodedPictures(
        torch.tensor(labels), shape, lambda row: image_bytes(files[row]), lambda row: str(files[row])
    )
