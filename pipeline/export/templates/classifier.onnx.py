"""Label image files: python classify.py photo.jpg ...

Needs: pip install onnxruntime numpy pillow opencv-python-headless
"""

import json
import pathlib
import sys

import cv2
import numpy
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(pathlib.Path(__file__).with_name("classifier.onnx"))
about = json.loads(session.get_modelmeta().custom_metadata_map["nstudent"])
side = about["image_size"]


def square(path):
    """The centre of an image file, as the program takes it."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    grey = Image.new("RGBA", image.size, (127, 127, 127, 255))
    pixels, edge = numpy.asarray(Image.alpha_composite(grey, image).convert("RGB")), min(image.size)
    top, left = (image.height - edge) // 2, (image.width - edge) // 2
    method = cv2.INTER_AREA if edge > side else cv2.INTER_CUBIC
    return cv2.resize(pixels[top : top + edge, left : left + edge], (side, side), interpolation=method)


pixels = numpy.stack([square(path) for path in sys.argv[1:]])
paths, confidence = session.run(["path", "confidence"], {"pixels": pixels})
for number, path in enumerate(sys.argv[1:]):
    labels = {
        level: [about["classes"][level][index], round(float(sure), 4)]
        for level, index, sure in zip(about["levels"], paths[number], confidence[number], strict=True)
        if index >= 0
    }
    print(json.dumps({"image": path, "labels": labels}))
