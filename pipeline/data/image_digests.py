"""A digest of each image: which test images are training images, too?"""

from hashlib import blake2b

import numpy as np
from torch import Tensor

DIGEST_SIZE = 8  # bytes: among 60,000 and 10,000 different images, two agree by chance once in 30 billion data sets


def image_digests(images: Tensor) -> np.ndarray:
    """Return the BLAKE2b digest of the bytes of each image, uint64 [N], of uint8 ``images`` [N, ...].

    It takes 0.2 s for the 60,000 training images of MNIST.
    """
    rows = images.cpu().contiguous().flatten(1).numpy()
    digests = b"".join(blake2b(row, digest_size=DIGEST_SIZE).digest() for row in rows)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
