"""ppocrv4-rec: rendered text lines, English and Chinese, as a camera or a scanner might see them."""

from datetime import datetime

import numpy as np
from faker import Faker
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dataset import ALPHABET, Dataset

HEIGHT, WIDTH = 48, 320
# Left and right of the ink: as closely as a text detector cuts a line out.
MARGIN = 3
# Lines (English, Chinese).
EVALUATION, CALIBRATION = (200, 100), (80, 40)
LATIN_FONTS = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansCondensed", "DejaVuSansCondensed-Bold",
               "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerifCondensed", "DejaVuSerifCondensed-Bold"]
CHINESE_FONT = "wqy-microhei.ttc"

ENGLISH = [
    lambda f: f.sentence(nb_words=4), lambda f: f.sentence(nb_words=3), lambda f: f.name(), lambda f: f.street_address(),
    lambda f: f"{f.city()}, {f.state_abbr()} {f.postcode()}", lambda f: moment(f, "%d %B %Y"), lambda f: f.numerify("(###) ###-####"),
    lambda f: f.company(), lambda f: f"Total: {f.pricetag()}", lambda f: f.bothify("Invoice ??-#####"), lambda f: f.job(),
    lambda f: f.catch_phrase(), lambda f: moment(f, "%H:%M %A"), lambda f: f"{f.random_int(2, 98)} % of {f.color_name()}",
]
CHINESE = [
    lambda f: f.sentence(nb_words=5), lambda f: f.name(), lambda f: f.company(), lambda f: f.address().split()[0],
    lambda f: f.job(), lambda f: moment(f, "%Y年%m月%d日"), lambda f: f"电话{f.phone_number()}", lambda f: f"共{f.random_int(10, 9999)}元",
]


def moment(faker, form):
    """A date of a fixed range: Faker's own end today."""
    return faker.date_time_between(datetime(1970, 1, 1), datetime(2026, 1, 1)).strftime(form)


def datasets(root):
    alphabet = characters(root / "ppocr_keys_v1.txt")
    seen = set()
    evaluation, texts = rendered(root / "data" / "fonts", EVALUATION, set(alphabet), seen, seed=3)
    calibration, _ = rendered(root / "data" / "fonts", CALIBRATION, set(alphabet), seen, seed=4)
    return [Dataset("ppocrv4-rec", {"x": calibration}, {"x": evaluation, "text": texts, ALPHABET: np.array(alphabet)})]


def characters(keys):
    """What each class of the output stands for; the first is CTC's blank, the last the space."""
    return ["", *keys.read_text(encoding="utf-8").split("\n")[:6623], " "]


def rendered(fonts, counts, alphabet, seen, seed):
    """(f32[N,3,48,320], texts) of N lines; `seen` keeps texts from coming twice."""
    random, lines = np.random.RandomState(seed), []
    for locale, kinds, count in zip(("en_US", "zh_CN"), (ENGLISH, CHINESE), counts):
        faker = Faker(locale)
        faker.seed_instance(seed)
        wanted = len(lines) + count
        while len(lines) < wanted:
            font = chosen_font(fonts, locale, random)
            text = fitting(kinds[random.randint(len(kinds))](faker), font, " " if locale == "en_US" else "")
            if text in seen or not set(text) <= alphabet:
                continue
            seen.add(text)
            lines.append((line(text, font, random), text))
    images, texts = zip(*lines)
    return np.stack(images), np.array(texts)


def chosen_font(fonts, locale, random):
    size = int(random.randint(24, 34))
    if locale == "zh_CN":
        return ImageFont.truetype(fonts / "wqy" / CHINESE_FONT, size, layout_engine=ImageFont.Layout.BASIC)
    name = LATIN_FONTS[random.randint(len(LATIN_FONTS))]
    return ImageFont.truetype(fonts / "dejavu" / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


def fitting(text, font, separator):
    """The text, or as many of its first words (Chinese: characters) as a line has room for."""
    words = text.split(separator) if separator else list(text)
    while len(words) > 1 and font.getlength(separator.join(words)) > WIDTH - 2 * MARGIN:
        words.pop()
    return separator.join(words)


def line(text, font, random):
    """f32[3,48,320]: BGR, (x / 255 - 0.5) / 0.5, zeros right of the line as PaddleOCR pads."""
    left, top, right, bottom = font.getbbox(text)
    width = min(WIDTH, right - left + 2 * MARGIN)
    dark, light = random.randint(0, 120, 3), random.randint(150, 256, 3)
    ink, paper = (dark, light) if random.randint(4) else (light, dark)
    image = Image.new("RGB", (width, HEIGHT), tuple(map(int, paper)))
    at = ((width - (right - left)) / 2 - left, (HEIGHT - (bottom - top)) / 2 - top + random.uniform(-2, 2))
    ImageDraw.Draw(image).text(at, text, fill=tuple(map(int, ink)), font=font)
    image = image.rotate(random.uniform(-1, 1), Image.Resampling.BICUBIC, fillcolor=tuple(map(int, paper)))
    image = coarse(image, random.uniform(0.24, 0.9)).filter(ImageFilter.GaussianBlur(random.uniform(0, 1)))
    pixels = np.asarray(image, np.float32)[:, :, ::-1] + random.standard_normal((HEIGHT, width, 3)) * random.uniform(0, 24)
    pixels = np.rint(np.clip(pixels, 0, 255)).astype(np.float32)
    padded = np.zeros((3, HEIGHT, WIDTH), np.float32)
    padded[:, :, :width] = (pixels.transpose(2, 0, 1) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    return padded


def coarse(image, factor):
    """The image as if it had been taken with `factor` of its resolution."""
    small = image.resize([max(1, round(side * factor)) for side in image.size], Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BICUBIC)
