"""Make a small data set of videos in which nothing but motion tells the classes apart.

    python -m util_scripts.demo_videos DST [--seed 1] [--n_train 80] [--n_val 20]

writes DST/videos/Class/v_Class_gNN_cNN.avi and the split files of UCF-101 into DST/splits.

How a single frame is kept from saying anything: a textured shape lies in front of a textured
ground, and its place, angle and size are one point on a torus. A shape that leaves at the right
comes back at the left; one that grows fades out while a smaller one fades in inside it. The start
is uniform on the torus, and a class is a direction in which the point moves at constant speed.
Uniform stays uniform under such a motion, so at *every* frame the state has the same distribution,
whatever the class. All classes share their scenes too: the same shape, colours and ground appear
once in each class. There is no motion blur, which would show a direction in one frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.arguments import COUNT, POSITIVE, Parser, command_line
from runtime.errors import InputError, run
from runtime.output import wrote
from util_scripts.helpers.files import make_folder
from util_scripts.helpers.jobs import n_processors, run_jobs
from util_scripts.helpers.video_writing import write_avi

WIDTH, HEIGHT = 48, 48  # pixels
N_FRAMES, FPS = 32, 25
CLIPS_PER_GROUP = 4  # as in UCF-101, the clips of a group are all in one split

# Class -> which coordinate of the state (x, y, angle, log size) moves, and which way. Rows of an
# image count downwards, so an angle that increases turns clockwise.
MOTIONS = {
    'Grow': (0, 0, 0, 1),
    'MoveDown': (0, 1, 0, 0),
    'MoveLeft': (-1, 0, 0, 0),
    'MoveRight': (1, 0, 0, 0),
    'MoveUp': (0, -1, 0, 0),
    'Shrink': (0, 0, 0, -1),
    'TurnClockwise': (0, 0, 1, 0),
    'TurnCounterclockwise': (0, 0, -1, 0),
}

SIZE_RATIO = 2.2  # of a shape and the smaller one inside it
# Pixels, pixels, radians, log size: where each coordinate wraps, and how far it goes in a frame.
PERIODS = np.array([WIDTH, HEIGHT, 2 * np.pi, np.log(SIZE_RATIO)])
SPEEDS = np.array([[0.8, 0.8, np.radians(6), 0.03],
                   [2.0, 2.0, np.radians(12), 0.06]])
RADII = 8.0, 11.0  # pixels: of a shape between fading in and fading out
CAMERA_JITTER = 0.25  # pixels, standard deviation, drawn anew for each frame
SENSOR_NOISE = 0.015  # standard deviation, of a 0…1 image


@dataclass(frozen=True)
class Waves:
    """A texture: a sum of plane waves, known everywhere, so that it moves by any part of a pixel.

    `vectors` (n, 2) in radians a unit of length, `phases` (n), `colours` (n, 3), `base` (3).
    """

    vectors: np.ndarray
    phases: np.ndarray
    colours: np.ndarray
    base: np.ndarray

    def paint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Coordinates of any shape, twice -> colours (..., 3), about 0…1."""
        waves = np.empty((*x.shape, len(self.phases)), dtype=np.float32)
        for n, ((along_x, along_y), phase) in enumerate(zip(self.vectors, self.phases)):
            waves[..., n] = np.cos(along_x * x + along_y * y + phase)
        return self.base + waves @ self.colours


@dataclass(frozen=True)
class Scene:
    """What a video shows, whatever moves: two textures, and the outline and size of the shape.

    The outline is a circle with `bumps` (n, 3): how many round the circle, how high, at which
    angle. `radius` is in pixels, that of the outer shape at log size 0.
    """

    ground: Waves
    skin: Waves
    bumps: np.ndarray
    radius: np.float32


def draw_waves(rng: np.random.Generator, vectors: np.ndarray, contrast: float,
               base: tuple[float, float]) -> Waves:
    """Waves along `vectors` (n, 2), of random phases and colours that are mostly grey.

    `contrast` is the standard deviation of all together, `base` the bounds of the mean colour.
    """
    n = len(vectors)
    grey, tint = rng.normal(size=(n, 1)), rng.normal(size=(n, 3))
    return Waves(vectors=vectors.astype(np.float32),
                 phases=rng.uniform(0, 2 * np.pi, n).astype(np.float32),
                 colours=(contrast * np.sqrt(2 / n) * (0.8 * grey + 0.6 * tint)).astype(np.float32),
                 base=rng.uniform(*base, 3).astype(np.float32))


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene: a bright shape before a darker ground, which makes motion easy to see."""
    # Whole numbers of waves across a frame: the ground has no seam, as the torus has none.
    turns = rng.integers(-4, 5, (8, 2))
    ground = draw_waves(rng, 2 * np.pi * turns / (WIDTH, HEIGHT), contrast=0.08, base=(0.1, 0.4))
    direction, waves_a_radius = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.3, 0.8, 5)
    vectors = 2 * np.pi * waves_a_radius * np.array([np.cos(direction), np.sin(direction)])
    bumps = np.stack([[2, 3, 5], rng.uniform(0.08, 0.2, 3), rng.uniform(0, 2 * np.pi, 3)], axis=1)
    return Scene(ground=ground, skin=draw_waves(rng, vectors.T, contrast=0.2, base=(0.5, 0.9)),
                 bumps=bumps.astype(np.float32), radius=np.float32(rng.uniform(*RADII)))


def draw_states(rng: np.random.Generator, class_name: str, n_frames: int = N_FRAMES
                ) -> np.ndarray:
    """The path of one video through the torus: (T, 4), x, y, angle, log size."""
    start = rng.uniform(0, PERIODS)
    speed = rng.uniform(*SPEEDS) * MOTIONS[class_name]
    return np.mod(start + np.arange(n_frames)[:, None] * speed, PERIODS)


def paint_shape(image: np.ndarray, scene: Scene, x: np.ndarray, y: np.ndarray, angle: np.ndarray,
                radius: np.ndarray, opacity: np.ndarray) -> None:
    """Lay the shape over `image` (T, H, W, 3), which is changed.

    `x`, `y` (T, H, W) are pixels from the centre of the shape; `angle`, `radius` and `opacity`
    are (T, 1, 1).
    """
    reach = 1 + scene.bumps[:, 1].sum() + 1 / radius.min()
    near = np.hypot(x, y) < reach * radius  # most of a frame is not: a third of the time
    x, y = x[near], y[near]
    angle, radius, opacity = (np.broadcast_to(value, near.shape)[near]
                              for value in (angle, radius, opacity))
    across = (np.cos(angle) * x + np.sin(angle) * y) / radius
    down = (np.cos(angle) * y - np.sin(angle) * x) / radius
    bearing = np.arctan2(down, across)
    outline = 1 + sum(height * np.cos(count * bearing + turn)
                      for count, height, turn in scene.bumps)
    # The outline takes one pixel to go from in to out: that is the anti-aliasing.
    cover = opacity * np.clip((outline - np.hypot(across, down)) * radius + 0.5, 0, 1)
    image[near] += cover[:, None] * (scene.skin.paint(across, down) - image[near])


def render(rng: np.random.Generator, scene: Scene, states: np.ndarray) -> np.ndarray:
    """A scene and states (T, 4) -> frames (T, HEIGHT, WIDTH, 3) uint8."""
    states = states.astype(np.float32)[..., None, None]
    jitter = rng.normal(0, CAMERA_JITTER, (len(states), 2, 1, 1)).astype(np.float32)
    x = np.arange(WIDTH, dtype=np.float32) + jitter[:, 0]  # (T, 1, W)
    y = np.arange(HEIGHT, dtype=np.float32)[:, None] + jitter[:, 1]  # (T, H, 1)
    image = scene.ground.paint(*np.broadcast_arrays(x, y))
    across, down = (np.mod(at - centre + period / 2, period) - period / 2
                    for at, centre, period in ((x, states[:, 0], WIDTH), (y, states[:, 1], HEIGHT)))
    across, down = np.broadcast_arrays(across, down)
    angle, log_size = states[:, 2], states[:, 3]
    for copy in (1, 0):  # the outer one first, then the smaller one inside it
        phase = log_size / np.float32(PERIODS[3]) + copy  # 0 … 2, smallest to largest
        opacity = np.clip(2.5 * np.minimum(phase, 2 - phase), 0, 1)
        radius = scene.radius * np.float32(SIZE_RATIO) ** (phase - 1)
        paint_shape(image, scene, across, down, angle, radius, opacity)
    image += SENSOR_NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def make_frames(seed: int, class_name: str, number: int) -> np.ndarray:
    """The video `number` of a class: (T, HEIGHT, WIDTH, 3) uint8, fixed by the arguments."""
    scene = draw_scene(np.random.default_rng([seed, number]))
    rng = np.random.default_rng([seed, number, 1 + list(MOTIONS).index(class_name)])
    return render(rng, scene, draw_states(rng, class_name))


def video_name(class_name: str, number: int) -> str:
    """As UCF-101 names its videos: v_MoveLeft_g01_c01 for number 0."""
    group, clip = divmod(number, CLIPS_PER_GROUP)
    return f'v_{class_name}_g{group + 1:02d}_c{clip + 1:02d}'


def split_numbers(n_train: int, n_val: int) -> tuple[range, range]:
    """Numbers of the training and of the test videos of a class, no group in both."""
    n_test_groups = -(-n_val // CLIPS_PER_GROUP)
    begin = n_test_groups * CLIPS_PER_GROUP  # the first groups are tested, as in UCF-101's split 1
    return range(begin, begin + n_train), range(n_val)


@dataclass(frozen=True)
class Job:
    """One video to make."""

    path: Path
    seed: int
    class_name: str
    number: int


def make_video(job: Job) -> bool:
    """Render and write a video; True, since None is what a job gives whose process died."""
    write_avi(job.path, list(make_frames(job.seed, job.class_name, job.number)), FPS)
    return True


def make_videos(video_dir: Path, numbers: Iterable[int], *, seed: int) -> None:
    """Write the videos of these numbers into `video_dir`/Class, with a process for each core."""
    # Here, because it takes seconds: worker processes import this module too.
    from runtime.logs import Progress
    jobs = [Job(video_dir / class_name / f'{video_name(class_name, number)}.avi',
                seed, class_name, number)
            for class_name in MOTIONS for number in numbers]
    for class_name in MOTIONS:
        make_folder(video_dir / class_name)
    with Progress(len(jobs), 'videos', unit='video') as progress:
        def count(job: Job, is_made: bool | None) -> None:
            if not is_made:
                raise InputError(f'{job.path}: the process that made it died; free some memory')
            progress.update(1)
        run_jobs(make_video, jobs, n_processors(), count)


def write_splits(split_dir: Path, train_numbers: Iterable[int], test_numbers: Iterable[int]
                 ) -> None:
    """Write classInd.txt, trainlist01.txt and testlist01.txt as UCF-101 has them."""
    make_folder(split_dir)
    classes = {name: index for index, name in enumerate(MOTIONS, start=1)}

    def write(file_name: str, lines: Iterable[str]) -> None:
        (split_dir / file_name).write_text(''.join(f'{line}\n' for line in lines))

    write('classInd.txt', (f'{index} {name}' for name, index in classes.items()))
    write('trainlist01.txt', (f'{name}/{video_name(name, number)}.avi {index}'
                              for name, index in classes.items() for number in train_numbers))
    write('testlist01.txt', (f'{name}/{video_name(name, number)}.avi'
                             for name in classes for number in test_numbers))


def add_data_flags(parser: Parser) -> None:
    """The flags that say which data set is made."""
    parser.add_argument('--seed', type=COUNT, default=1, metavar='N',
                        help='same seed, same bytes')
    parser.add_argument('--n_train', type=POSITIVE, default=80, metavar='N',
                        help='training videos per class')
    parser.add_argument('--n_val', type=POSITIVE, default=20, metavar='N',
                        help='test videos per class')


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.demo_videos',
                    'Make a small data set of videos, laid out as UCF-101, in which nothing but '
                    'motion tells the classes apart.')
    parser.add_argument('dst_path', type=Path, help='folder for videos/ and splits/')
    add_data_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    video_dir, split_dir = args.dst_path / 'videos', args.dst_path / 'splits'
    for folder in (video_dir, split_dir):
        if folder.exists():
            raise InputError(f'{folder} is already there: delete it or name another folder')
    train_numbers, test_numbers = split_numbers(args.n_train, args.n_val)
    make_videos(video_dir, [*test_numbers, *train_numbers], seed=args.seed)
    write_splits(split_dir, train_numbers, test_numbers)
    wrote(video_dir, split_dir,
          about=f'{len(MOTIONS)} classes, {args.n_train} training and {args.n_val} test videos in '
                f'each, {WIDTH}x{HEIGHT} pixels, {N_FRAMES} frames at {FPS} fps',
          then=command_line('generate_video_jpgs', video_dir, args.dst_path / 'jpg', 'ucf101',
                            '--size', HEIGHT))


if __name__ == '__main__':
    run(main)
