"""Folders of images as people have them: every kind is read right, and what is left out is said."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinygen.data import held_out, load
from tinygen.data.folders import read_folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine ü"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder that hypothesis may write into again and again."""
    return tmp_path_factory.mktemp("scratch")


def noise(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def save(folder, images, mode=None, suffix="png", first=0, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images, first):
        picture = Image.fromarray(image)
        (picture.convert(mode) if mode else picture).save(folder / f"{i:03}.{suffix}", **options)


def write(path, content=b"no image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_or_refused(folder):
    """(what the folder gives, "") or (None, the sentence, which names the folder)."""
    try:
        return read_folder(folder), ""
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith(str(folder))
    return None, refusal


def read(folder, size=None):
    """The images of a folder that is one set, and its only note."""
    found = read_folder(folder, size)
    ((images, _),) = found.sets
    return images, "".join(found.notes)


# ------------------------------------------------------------------------------------------------- which files are read


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_images_in_one_folder(folder, shape):
    images = noise(12, *shape)
    save(folder, images)
    train, test = load(folder)
    wanted = images[:, None] if len(shape) == 2 else images.transpose(0, 3, 1, 2)
    tested = held_out(2, 12)
    assert np.array_equal(test.images, wanted[tested])
    assert np.array_equal(train.images, wanted[~tested])
    assert (train.labels, train.classes, train.name, train.levels, train.notes) == (None, (), "mine ü", 256, ())


def test_jpegs_and_pngs_are_all_used(folder):
    save(folder, noise(30, 8, 8), suffix="jpg")
    save(folder, noise(3, 8, 8, seed=1), suffix="PNG", first=50)
    save(folder, noise(2, 8, 8, seed=2), suffix="webp", first=60, lossless=True)
    images, note = read(folder)
    assert len(images) == 35
    assert np.array_equal(images[30:33, 0], noise(3, 8, 8, seed=1))
    assert note == "of the 35 images in mine ü: 33 gray, read as color as others are"  # a WebP is never gray


def test_images_in_subfolders_have_labels(folder):
    cats, dogs = noise(9, 2, 2, seed=2), noise(3, 2, 2, seed=1)
    save(folder / "dogs", dogs)
    save(folder / "cats", cats)
    train, test = load(folder)
    assert train.classes == ("cats", "dogs")
    assert sorted(test.labels.tolist()) == [0, 1]
    assert train.labels.tolist() == [0] * 8 + [1] * 2
    assert np.array_equal(read_folder(folder).sets[0][0][:, 0], np.concatenate([cats, dogs]))


@pytest.mark.parametrize(("train_name", "test_name"), [("train", "test"), ("Training", "testing"), ("train", "val")])
def test_folders_train_and_test_are_those_sets(folder, train_name, test_name):
    a, b = folder / "a", folder / "b"
    save(a / train_name, noise(3, 2, 2))
    save(a / test_name, noise(2, 2, 2, seed=1))
    train, test = load(a)
    assert (len(train), train.labels) == (3, None)
    assert np.array_equal(test.images[:, 0], noise(2, 2, 2, seed=1))
    for part, animals in ((train_name, ["cats", "dogs"]), (test_name, ["cats"])):
        for animal in animals:
            save(b / part / animal, noise(2, 2, 2))
    with pytest.raises(ValueError, match=r"test must have train's classes \('cats', 'dogs'\), got \('cats',\)"):
        load(b)
    save(b / test_name / "dogs", noise(1, 2, 2))
    train, test = load(b)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 0, 1]


def test_images_beside_train_and_test_are_counted(folder):
    for part in ("train", "test", "val"):
        save(folder / part, noise(3, 2, 2))
    save(folder, noise(1, 2, 2))
    found = read_folder(folder)
    assert [len(images) for images, _ in found.sets] == [3, 3]
    beside = "4 beside train and test (000.png, val/000.png, val/001.png, val/002.png)"
    assert found.notes == (f"of the 6 images in mine ü: left out: {beside}",)


def test_a_class_one_folder_deeper_is_read_and_said(folder):
    save(folder / "cats", noise(2, 2, 2))
    save(folder / "dogs" / "poodles", noise(2, 2, 2, seed=1))
    save(folder / "dogs" / "terriers" / "white", noise(1, 2, 2, seed=2))
    found = read_folder(folder)
    assert (found.classes, found.sets[0][1].tolist()) == (("cats", "dogs"), [0, 0, 1, 1, 1])
    assert found.notes == ("of the 5 images in mine ü: 3 deeper than their class's folder",)


def test_a_folder_that_only_wraps_is_passed_through(folder):
    save(folder / "archive" / "images" / "cats", noise(2, 2, 2))
    save(folder / "archive" / "images" / "dogs", noise(2, 2, 2))
    save(folder / "__MACOSX" / "archive" / "images" / "cats", noise(2, 2, 2))
    found = read_folder(folder)
    assert (found.classes, found.sets[0][1].tolist()) == (("cats", "dogs"), [0, 0, 1, 1])
    for part in ("train", "test"):
        shutil.copytree(folder / "archive" / "images", folder / "wrapped" / "x" / part)
    assert read_folder(folder / "wrapped").classes == ("cats", "dogs")
    shutil.rmtree(folder / "wrapped" / "x" / "test")
    assert read_folder(folder / "wrapped").classes == ("cats", "dogs")  # train alone is no class


def test_hidden_and_system_folders_are_no_classes(folder):
    for name in ("cats", "dogs", ".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"):
        save(folder / name, noise(2, 2, 2))
    write(folder / "cats" / "._000.png")
    write(folder / ".DS_Store")
    write(folder / "Thumbs.db")
    found = read_folder(folder)
    assert found.classes == ("cats", "dogs")
    (note,) = found.notes
    assert note.startswith("of the 4 images in mine ü: left out: 7 hidden or of a system (.DS_Store, .git, ")
    assert note.endswith(", ...)")


def test_what_is_left_out_is_counted_and_named(folder):
    save(folder / "cats", noise(3, 2, 2))
    write(folder / "cats" / "old.bmp")
    write(folder / "labels.csv")
    (folder / "birds").mkdir()
    write(folder / "fish" / "notes.txt")
    images, note = read(folder)
    assert len(images) == 3
    for part in ("3 not PNG, JPEG or WebP (old.bmp, notes.txt, labels.csv)", "2 folders without images (birds, fish)"):
        assert part in note
    assert note.startswith("of the 3 images in mine ü: left out: ")


def test_a_link_to_a_folder_above_ends(folder):
    save(folder / "cats", noise(2, 2, 2))
    (folder / "cats" / "all").symlink_to(folder)
    (folder / "dogs").symlink_to(folder / "cats")
    found = read_folder(folder)
    assert (found.classes, found.sets[0][1].tolist()) == (("cats",), [0, 0])
    assert "linked to what is read anyway (dogs)" in found.notes[0]


def test_no_image_is_read_twice_through_links(folder):
    a, b = folder / "a", folder / "b"
    for part in (a, b):
        part.mkdir(parents=True)
        for i in range(3):
            Image.new("L", (2, 2), i).save(part / f"{i}.png")
    (a / "x").symlink_to("../b")
    (b / "x").symlink_to("../a")  # round and round
    (a / "3.png").symlink_to("0.png")
    (b / "4.png").symlink_to("nowhere")
    found = read_folder(folder)
    assert [len(labels) for _, labels in found.sets] == [6]
    assert "3 linked to what is read anyway (3.png, x, x)" in found.notes[0]
    assert "1 links to nothing (4.png)" in found.notes[0]


def test_links_into_hidden_and_into_other_folders_are_followed_once(folder, tmp_path_factory):
    elsewhere, kept = tmp_path_factory.mktemp("elsewhere"), folder / ".kept"
    kept.mkdir(parents=True)
    for i in range(3):
        Image.new("L", (2, 2), i).save(kept / f"{i}", "PNG")  # as git-annex and DVC keep them
        Image.new("L", (2, 2), i).save(elsewhere / f"{i}.png")
    (folder / "a").mkdir()
    for i in range(3):
        (folder / "a" / f"{i}.png").symlink_to(kept / f"{i}")
    for name in ("b", "c"):
        (folder / name).symlink_to(elsewhere)
    found = read_folder(folder)
    assert (found.classes, len(found.sets[0][0])) == (("a", "b"), 6)
    assert "linked to what is read anyway (c)" in found.notes[0]


def test_16_bits_of_gray_are_turned_too(folder):
    folder.mkdir()
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) << 8
    for name, orientation in (("a", 6), ("b", 9)):  # 9 is none
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(values if orientation == 6 else values.T[::-1]).save(folder / f"{name}.png", exif=exif)
    found = read_folder(folder)
    np.testing.assert_array_equal(found.sets[0][0][0, 0], np.rot90(values >> 8, -1))
    assert "1 turned as their EXIF orientation says" in found.notes[0]


@pytest.mark.fault("R12")
def test_folders_without_usable_images(folder):
    write(folder / "a.bmp")
    with pytest.raises(ValueError, match=r"holds no images, wanted are .* WebP files; left out: 1 not .* \(a.bmp\)"):
        load(folder)
    save(folder, noise(2, 2, 2))
    save(folder / "cats", noise(2, 2, 2))
    with pytest.raises(ValueError, match="images lie in the folder and in its subfolders"):
        load(folder)


NAMES = st.sampled_from(["a", "b", "Train", "test", ".x", "__MACOSX"])
FILES = st.sampled_from(["1.png", "2.PNG", "3.txt", ".4.png"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(NAMES, max_size=3).map(tuple), FILES), min_size=1, max_size=8, unique=True))
def test_of_any_tree_every_image_is_read_once_or_named(scratch, tree):
    root = scratch / "tree"
    shutil.rmtree(root, ignore_errors=True)
    picture = io.BytesIO()
    for i, (folders, name) in enumerate(tree):
        picture = io.BytesIO()
        Image.fromarray(np.full((1, 1), i, np.uint8)).save(picture, "PNG")
        write(root.joinpath(*folders, name), picture.getvalue())
    visible = [i for i, (folders, name) in enumerate(tree)
               if name[0] in "12" and not set(folders) & {".x", "__MACOSX"}]  # fmt: skip
    found, refusal = read_or_refused(root)
    assert ("holds no images" in refusal) == (not visible)
    if found is None:
        assert "images lie in" in refusal or "test must have train's classes" in refusal or not visible
        return
    got = [int(x) for images, _ in found.sets for x in images.ravel()]
    note = "".join(found.notes)
    assert len(set(got)) == len(got)
    missing = set(visible) - set(got)
    assert set(got) <= set(visible)
    assert (f"{len(missing)} beside " in note) == bool(missing)
    for images, labels in found.sets:
        for x, label in zip(images.ravel(), () if labels is None else labels, strict=False):
            assert found.classes[label] in tree[x][0]


# ------------------------------------------------------------------------------------------------------ kinds of images


def png16(array):
    """A PNG of 16 bits a channel, gray (H, W) or color (H, W, 3): Pillow can't write the latter."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if array.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3)])
def test_of_16_bits_the_high_byte_is_taken_and_it_is_said(folder, shape):
    values = np.random.default_rng(0).integers(0, 1 << 16, shape, np.uint16)
    values.ravel()[:5] = 0, 255, 256, 65279, 65535
    write(folder / "a.png", png16(values))
    images, note = read(folder)
    wanted = (values // 256).astype(np.uint8)
    assert np.array_equal(images[0], wanted[None] if len(shape) == 2 else wanted.transpose(2, 0, 1))
    assert note == "of the 1 images in mine ü: 1 of 16 bits a channel, their low bytes dropped"


def test_black_and_white_is_gray(folder):
    save(folder, np.array([[[0, 255]]] * 3, np.uint8), "1")
    assert read(folder)[0].tolist() == [[[[0, 255]]]] * 3


def test_a_palette_is_color(folder):
    folder.mkdir()
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 7, 7, 7])
    image.save(folder / "a.png")
    assert read(folder)[0][0].transpose(1, 2, 0).tolist() == [[[10, 20, 30], [40, 50, 60], [7, 7, 7]]]
    image.save(folder / "a.png", transparency=1)
    images, note = read(folder)
    assert images[0].transpose(1, 2, 0).tolist() == [[[10, 20, 30], [255, 255, 255], [7, 7, 7]]]
    assert "1 transparent in parts, laid on white" in note


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_laid_on_white(folder, mode):
    folder.mkdir()
    alpha = np.array([[0, 255, 128, 1]], np.uint8)
    color = noise(1, 1, 4, len(mode) - 1)[0]
    Image.fromarray(np.concatenate([color, alpha[..., None]], axis=2)).save(folder / "a.png")
    images, note = read(folder)
    share = alpha[..., None] / 255
    wanted = color * share + 255 * (1 - share)
    assert images.shape[1] == len(mode) - 1
    assert np.abs(images[0].transpose(1, 2, 0) - wanted).max() <= 1
    assert np.array_equal(images[0, :, :, :2].transpose(1, 2, 0), np.round(wanted[:, :2]))
    assert note.endswith("1 transparent in parts, laid on white")


LOSSLESS = [(mode, suffix) for mode in ("L", "RGB", "RGBA", "P") for suffix in ("png", "webp")][:-1]  # WebP has no P
LOSSLESS.remove(("L", "webp"))  # it is read as color


@given(st.data())
@settings(max_examples=80)
def test_any_image_written_without_loss_is_read_as_it_is(scratch, draw):
    mode, suffix = draw.draw(st.sampled_from(LOSSLESS))
    height, width = draw.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "P": 1}[mode]
    pixels = noise(1, height, width, channels, seed=draw.draw(st.integers(0, 99)))[0]
    wanted = pixels[..., :3]
    if mode == "RGBA":
        pixels[..., 3] = 255
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    if mode == "P":
        palette = noise(1, 256, 3, seed=5)[0]
        image = Image.fromarray(pixels[..., 0], "P")
        image.putpalette(palette.tobytes())
        wanted = palette[pixels[..., 0]]
    root = scratch / "any"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    image.save(root / f"a.{suffix}", lossless=True)
    assert np.array_equal(read(root)[0][0].transpose(1, 2, 0), wanted)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_read_as_pillow_reads_it(folder, mode):
    y, x = np.mgrid[:16, :24] * 8.0
    smooth = np.stack([x, y, 128 + 0 * x], axis=2).astype(np.uint8)
    folder.mkdir()
    image = Image.fromarray(smooth).convert(mode)
    image.save(folder / "a.jpg", quality=95)
    images, _ = read(folder)
    wanted = np.asarray(image.convert("L" if mode == "L" else "RGB")).reshape(16, 24, -1)
    assert np.abs(images[0].transpose(1, 2, 0).astype(int) - wanted).mean() < 3


def test_a_photograph_is_turned_as_its_exif_says(folder):
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image = np.zeros((16, 32), np.uint8)
    image[:, 16:] = 255
    Image.fromarray(image).save(folder / "a.jpg", exif=exif)
    images, note = read(folder)
    assert np.abs(images[0, 0].astype(int) - np.rot90(image, -1)).max() < 8
    assert note.endswith("1 turned as their EXIF orientation says")


def test_of_several_frames_the_first_is_taken(folder):
    folder.mkdir()
    frames = [Image.fromarray(x) for x in noise(3, 4, 4, 3)]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    images, note = read(folder)
    assert np.array_equal(images[0].transpose(1, 2, 0), noise(3, 4, 4, 3)[0])
    assert note.endswith("1 of several frames, the first taken")


def test_gray_among_color_is_read_as_color(folder):
    save(folder, noise(2, 4, 6))
    save(folder, noise(1, 4, 6, 3, seed=1), first=2)
    images, note = read(folder)
    assert np.array_equal(images[:2], np.repeat(noise(2, 4, 6)[:, None], 3, axis=1))
    assert note.endswith("2 gray, read as color as others are")


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.fault("R12")
def test_several_sizes_are_refused_with_what_to_write(folder):
    save(folder, noise(3, 4, 6))
    Image.new("L", (6, 5)).save(folder / "odd.png")
    with pytest.raises(ValueError, match=r"odd.png: 6x5, but 000.png is 6x4: write --size 4 to resize all of them"):
        load(folder)


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 12), color=st.booleans())
@settings(max_examples=60)
def test_any_size_becomes_the_middle_of_the_size_asked_for(scratch, height, width, size, color):
    root = scratch / "sizes"
    shutil.rmtree(root, ignore_errors=True)
    x = np.mgrid[:height, :width][1]
    short = min(height, width)
    ramp = np.round(40 + 170 * (x - (width - 1) / 2) / short / 2 + 40).clip(0, 255).astype(np.uint8)
    save(root, [np.repeat(ramp[..., None], 3, axis=2) if color else ramp])
    images, note = read(root, size)
    assert images.shape == (1, 3 if color else 1, size, size)
    if (height, width) == (size, size):
        assert np.array_equal(images[0, 0], ramp)
        assert not note
        return
    assert f"1 resized to {size}x{size}, the middle cut out" in note
    assert ("hence enlarged" in note) == (short < size)
    left = (width - short) / 2  # each new pixel is about what stands in its middle
    at = np.clip(left + (np.arange(size) + 0.5) * short / size - 0.5, 0, width - 1)
    if short >= 4 and size >= 4:
        wanted = np.interp(at, np.arange(width), ramp[0].astype(float))
        assert np.abs(images[0, 0, size // 2, 1:-1] - wanted[1:-1]).max() < 12


def test_a_constant_image_stays_constant_when_it_is_resized(folder):
    save(folder, [np.full((50, 70, 3), (10, 200, 90), np.uint8)])
    images, _ = read(folder, 32)
    assert (images[0] == np.array([10, 200, 90])[:, None, None]).all()


def test_size_is_for_folders_of_images(folder):
    with pytest.raises(ValueError, match=r"--size resizes .*; digits is of another kind, its images are 8x8: leave"):
        load("digits", 32)
    assert len(load("digits", 8)[0]) == 1437  # as they are


# --------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.fault("R12")
@given(cut=st.integers(0, 10_000), suffix=st.sampled_from(["png", "jpg", "webp"]))
@settings(max_examples=60, deadline=None)
def test_an_image_that_is_cut_off_is_named(scratch, cut, suffix):
    root = scratch / "cut"
    shutil.rmtree(root, ignore_errors=True)
    save(root, noise(2, 24, 26), suffix=suffix)
    path = root / f"001.{suffix}"
    content = path.read_bytes()
    end = content.index(b"IEND") + 4 if suffix == "png" else len(content) - 16
    path.write_bytes(content[: cut % end])
    with pytest.raises(ValueError, match=rf"001\.{suffix}: "):
        load(root)


@pytest.mark.fault("R12")
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_flipped_bit_in_a_png_never_gives_another_image(scratch, position, bit):
    root = scratch / "flipped"
    save(root, noise(1, 4, 6))
    path = root / "000.png"
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    found, refusal = read_or_refused(root)
    if found is None:
        assert str(path) in refusal
    else:
        assert np.array_equal(found.sets[0][0][0, 0], noise(1, 4, 6)[0])  # the end mark's own checksum is not needed


def test_a_suffix_that_lies_doesn_t_matter(folder):
    save(folder, noise(2, 4, 6))
    (folder / "000.png").rename(folder / "000.jpg")
    assert np.array_equal(read(folder)[0][:, 0], noise(2, 4, 6))


def test_a_file_that_is_no_image_is_named(folder):
    save(folder, noise(2, 2, 2))
    write(folder / "z.jpeg")
    with pytest.raises(ValueError, match=r"z\.jpeg: cannot identify image file"):
        load(folder)


def test_images_without_pillow(folder, monkeypatch):
    save(folder, noise(3, 2, 2))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match="reading images needs Pillow: pip install pillow"):
        load(Path(folder))
