import io
import os

from PIL import Image
from report.fake_runs import write_picture

from ssl_lab.report.animation import MAX_FRAMES, small_webp, write_animation
from ssl_lab.report.pictures import galleries


def pictures(folder, steps):
    return {step: write_picture(folder / f"step_{step:08d}.png", seed=step) for step in steps}


def test_an_animation_shows_every_step_in_order_and_rests_on_the_last(tmp_path):
    frames = pictures(tmp_path, (10, 20, 30))
    assert write_animation(frames, tmp_path / "animation.gif") == tmp_path / "animation.gif"
    with Image.open(tmp_path / "animation.gif") as gif, Image.open(frames[30]) as last:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (3, last.size, 0)
        gif.seek(0)
        short = gif.info["duration"]
        gif.seek(2)
        assert gif.info["duration"] > 4 * short
        difference = [
            abs(a - b) for a, b in zip(gif.convert("RGB").tobytes(), last.convert("RGB").tobytes(), strict=True)
        ]
        assert sum(difference) / len(difference) < 8, "256 colours come close"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gif", ".png", ".png", ".png"]


def test_one_picture_does_not_move_and_other_sizes_are_left_out(tmp_path):
    frames = pictures(tmp_path, (1, 2))
    with Image.open(frames[1]) as image:
        larger = image.resize((image.width + 2, image.height))
    larger.save(frames[1])
    assert write_animation(frames, tmp_path / "animation.gif") is None
    assert write_animation({}, tmp_path / "animation.gif") is None
    assert not (tmp_path / "animation.gif").exists()


def test_many_steps_become_at_most_sixty_frames_with_both_ends(tmp_path):
    frames = {}
    for step in range(100):
        path = tmp_path / f"{step}.png"
        Image.new("RGB", (4, 4), (2 * step, 0, 0)).save(path)
        frames[step] = path
    write_animation(frames, tmp_path / "animation.gif")
    with Image.open(tmp_path / "animation.gif") as gif:
        assert gif.n_frames == MAX_FRAMES
        assert gif.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        gif.seek(MAX_FRAMES - 1)
        assert gif.convert("RGB").getpixel((0, 0)) == (198, 0, 0)


def test_on_a_page_an_animation_stays_small_or_is_left_out(tmp_path):
    frames = {}
    for step in range(8):
        path = tmp_path / f"{step}.png"
        Image.frombytes("RGB", (200, 100), os.urandom(60_000)).save(path)
        frames[step] = path
    content = small_webp(frames, side=100, max_bytes=20_000)
    assert content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) <= 20_000
    assert small_webp(frames, side=100, max_bytes=100) is None


def test_samples_move_on_the_page_and_views_do_not(tmp_path):
    frames = pictures(tmp_path, (10, 20))
    moving = {gallery.title: gallery.animation for gallery in galleries({"samples": frames, "views": frames}, {})}
    assert moving["Samples"].startswith("data:image/webp;base64,") and moving["Views"] == ""


def test_transparent_pictures_move_on_white_in_the_file_and_on_the_page_itself_in_a_report(tmp_path):
    frames = {}
    for step in (1, 2, 3):
        path = tmp_path / f"{step}.png"
        image = Image.new("RGBA", (20, 10), (117, 123, 130, 0))
        image.paste((10 * step, 0, 0, 255), (0, 0, 8, 8))
        image.save(path)
        frames[step] = path
    write_animation(frames, tmp_path / "animation.gif")
    for content, corner in (
        (tmp_path / "animation.gif", (255, 255, 255, 255)),
        (io.BytesIO(small_webp(frames, side=20, max_bytes=20_000)), (117, 123, 130, 0)),
    ):
        with Image.open(content) as moving:
            assert moving.n_frames == 3
            moving.seek(2)
            last = moving.convert("RGBA")
            assert last.getpixel((19, 9))[3] == corner[3] and (corner[3] == 0 or last.getpixel((19, 9)) == corner)
            assert last.getpixel((0, 0))[3] == 255 and last.getpixel((0, 0))[0] in range(26, 35)
