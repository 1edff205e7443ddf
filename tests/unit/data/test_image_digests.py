from hashlib import blake2b

import numpy as np
import torch

from pipeline.data.image_digests import image_digests

IMAGES = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_image_has_its_digest() -> None:
    digests = image_digests(IMAGES)
    expected = blake2b(IMAGES[3].numpy().tobytes(), digest_size=8).digest()
    assert digests.dtype == np.uint64
    assert digests.shape == (5,)
    assert int(digests[3]) == int.from_bytes(expected, "big")


def test_equal_images_have_equal_digests() -> None:
    changed = IMAGES.clone()
    changed[4, 0, 27, 27] ^= 1
    assert (image_digests(changed) == image_digests(IMAGES)).tolist() == [True, True, True, True, False]


def test_memory_layout_does_not_matter() -> None:
    transposed = IMAGES.transpose(2, 3).contiguous().transpose(2, 3)
    assert np.array_equal(image_digests(transposed), image_digests(IMAGES))
