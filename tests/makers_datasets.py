"""Small data set trees with the oddities of the real ones; their files hold one byte each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def make_tree(root: Path, *names: str) -> Path:
    """One-byte files below `root`, made with their folders."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_tar(
    path: Path,
    names: Iterable[str] | Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    mode: str = "w:gz",
) -> Path:
    """A tar of files (one byte each where no content is given) and symbolic links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            content = names[name] if isinstance(names, Mapping) else b"x"
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def ffpp_tree(root: Path) -> Path:
    """FaceForensics++ with DFD beside it: upper case, an old name of raw, masks, lost files."""
    real, fake = "original_sequences/youtube", "manipulated_sequences"
    make_tree(
        root,
        f"{real}/c23/videos/000.mp4",
        f"{real}/c23/videos/003.MP4",
        f"{real}/c23/videos/001.mp4",
        f"{real}/c23/videos/._000.mp4",
        f"{real}/c23/videos/notes.txt",
        f"{real}/c23/videos/trailer.mp4",
        f"{real}/c0/videos/000.mp4",
        f"{fake}/Deepfakes/c23/videos/000_003.mp4",
        f"{fake}/Deepfakes/c23/videos/003_000.mp4",
        f"{fake}/Deepfakes/c23/videos/000_001.mp4",
        f"{fake}/Deepfakes/c23/masks/videos/000_003.mp4",
        f"{fake}/Deepfakes/masks/videos/000_003.mp4",
        f"{fake}/FaceShifter/c40/videos/001_870.mp4",
        "original_sequences/actors/c23/videos/01__walking_outside.mp4",
        f"{fake}/DeepFakeDetection/c23/videos/01_02__walking_outside__YVGY8LOK.mp4",
    )
    write_json(root / "splits/train.json", [["000", "003"]])
    write_json(root / "splits/test.json", [["001", "870"]])
    return root


def celebdf_tree(root: Path) -> Path:
    """Celeb-DF v2 in its second spelling, one folder with videos/ inserted; list with 1 = real."""
    make_tree(
        root,
        "Celeb-real/id0_0003.mp4",
        "Celeb-real/id27_0005.mp4",
        "Youtube-real/videos/00009.mp4",
        "Celeb-synthesis/id0_id16_0003.mp4",
        "Celeb-synthesis/id0_id17_0003.MP4",
        "Celeb-synthesis/id1_id2.mp4",
    )
    listed = [f"1 YouTube-real/{number:05d}.mp4" for number in range(9, 110)]
    write_lines(
        root / "List_of_testing_videos.txt",
        *listed,
        "1 Celeb-real/id27_0005.mp4",
        "0 Celeb-synthesis/id0_id16_0003.mp4",
    )
    return root


def celebdf_circle(root: Path, people: int = 6, takes: int = 1, listed: int = 4) -> Path:
    """Celeb-DF v1 as it comes: everybody swapped with everybody, and a test list that names a take
    of the first `listed` people, each with the next one's face, and a person from YouTube."""
    numbers = range(people)
    reals = [f"Celeb-real/id{a}_{take:04d}.mp4" for a in numbers for take in range(takes)]
    fakes = [
        f"Celeb-synthesis/id{a}_id{b}_{take:04d}.mp4"
        for a in numbers
        for b in numbers
        if a != b
        for take in range(takes)
    ]
    make_tree(root, *reals, *fakes, *(f"YouTube-real/{number:05d}.mp4" for number in range(4)))
    write_lines(
        root / "List_of_testing_videos.txt",
        "1 YouTube-real/00002.mp4",
        *(f"1 Celeb-real/id{a}_0000.mp4" for a in range(listed)),
        *(f"0 Celeb-synthesis/id{a}_id{(a + 1) % people}_0000.mp4" for a in range(listed)),
    )
    return root


def dfdc_tree(root: Path) -> Path:
    """Two training parts and a test folder: a lost file, an unnamed one, capital letters."""
    make_tree(
        root,
        "dfdc_train_part_0/aaa.mp4",
        "dfdc_train_part_0/bbb.mp4",
        "dfdc_train_part_0/CCC.MP4",
        "dfdc_train_part_0/unnamed.mp4",
        "dfdc_train_part_07/ddd.mp4",
        "test/eee.mp4",
        "test/fff.mp4",
        "dfdc_train_part_9/ggg.mp4",
    )
    write_json(
        root / "dfdc_train_part_0/metadata.json",
        {
            "aaa.mp4": {"label": "FAKE", "split": "train", "original": "bbb.mp4"},
            "bbb.mp4": {"label": "REAL", "split": "train"},
            "ccc.mp4": {"label": "FAKE", "split": "train", "original": None},
            "lost.mp4": {"label": "REAL", "split": "train"},
        },
    )
    write_json(root / "dfdc_train_part_07/metadata.json", {"ddd.mp4": {"label": "maybe"}})
    write_lines(root / "test/labels.csv", "filename,label", "eee.mp4,1", "fff.mp4,0")
    return root


def dfdc_preview_tree(root: Path) -> Path:
    make_tree(
        root,
        "original_videos/643049/aaa.mp4",
        "method_A/643049/643049_A/bbb.mp4",
        "method_B/1224068/extra.mp4",
    )
    write_json(
        root / "dataset.json",
        {
            "original_videos/643049/aaa.mp4": {
                "label": "real",
                "set": "train",
                "target_id": 643049,
                "swapped_id": None,
            },
            "method_A/643049/643049_A/bbb.mp4": {
                "label": "fake",
                "set": "test",
                "target_id": 643049,
                "swapped_id": 1224068,
            },
            "method_A/643049/643049_A/lost.mp4": {"label": "fake", "set": "train"},
        },
    )
    return root


def deeperforensics_tree(root: Path) -> Path:
    make_tree(
        root,
        "manipulated_videos/end_to_end/000_M101.mp4",
        "manipulated_videos/end_to_end_level_1/000_M101.mp4",
        "manipulated_videos/reenact_postprocess/001_W010.mp4",
        "manipulated_videos/end_to_end/what.mp4",
        "source_videos/M101/light_up/angry/camera_left.mp4",
    )
    write_lines(root / "lists/splits/train.txt", "000_M101.mp4", "009_M004.mp4")
    write_lines(root / "lists/splits/test.txt", "000_M101.mp4")
    return root


def wilddeepfake_tree(root: Path) -> Path:
    """Both spellings of the folders, tars and an unpacked one, and tars that cannot be trusted."""
    home = root / "deepfake_in_the_wild"
    write_tar(home / "real_train/3.tar.gz", ["3/real/7/0.png", "3/real/7/1.png", "3/real/8/0.png"])
    write_tar(home / "fake test/5.tar", ["5/fake/1/10.png"], mode="w")
    write_tar(home / "fake test/6.tar.gz", ["6/real/1/10.png"])
    write_tar(home / "fake test/8.tar.gz", ["../../etc/cron.d/x.png"])
    write_tar(home / "fake test/9.tar.gz", ["9/1/1.png"], links={"9/1/2.png": "/etc/passwd"})
    write_tar(home / "fake test/10.tar.gz", ["10/readme.txt"])
    damaged = write_tar(home / "fake test/7.tar.gz", ["7/fake/1/1.png"])
    damaged.write_bytes(damaged.read_bytes()[:40])
    make_tree(home, "real_train/4/real/1/0.PNG", "real_train/notes.txt")
    write_tar(home / "real_train/4.tar.gz", ["4/real/1/0.png"])
    return root


def crop_folder_tree(root: Path) -> Path:
    make_tree(
        root,
        "training_set/Original/000/12_0.png",
        "training_set/Deepfakes/000_003/12_0.png",
        "training_set/DFDC/aaa/1_0.png",
        "validation_set/DFDC/bbb/1_0.png",
        "validation_set/DFDC/unknown/1_0.png",
    )
    (root / "test_set/Original/001").mkdir(parents=True)
    write_json(root / "metadata/part0.json", {"aaa.mp4": {"label": "FAKE"}})
    write_lines(root / "dfdc_val_labels.csv", "filename,label", "bbb.mp4,0")
    return root
