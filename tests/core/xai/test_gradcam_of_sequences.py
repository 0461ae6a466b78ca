from __future__ import annotations

import numpy as np

from spiral_core import nn
from spiral_core.data import MotifDataset
from spiral_core.xai import GradCam, GradCamConfig


def test_features_of_a_memory_layer_are_a_map_of_height_one_and_width_time() -> None:
    batch = MotifDataset(seed=0, batch_size=3).train_batch(0)
    x = np.ascontiguousarray(batch.images[:, 0].transpose(1, 0, 2))
    layer, head = nn.Lstm("lstm", 1, 5, stateful=False), nn.Linear("head", 5, 6)
    features = layer.forward(x)
    steps = len(features)
    # The score is the class's logit of the average over time.
    score = np.zeros((3, 6), np.float32)
    score[np.arange(3), batch.labels] = 1
    at_mean = head.backward(features.mean(axis=0), score)
    gradients = np.broadcast_to(at_mean / steps, features.shape)
    for n in range(3):
        raw = GradCamConfig(1, steps, apply_relu=False, normalise=False)
        ours = GradCam.attribute(features[:, n].T, gradients[:, n].T, raw)
        expected = features[:, n] @ head.weight.value[:, batch.labels[n]] / steps
        assert ours.shape == (1, steps)
        np.testing.assert_allclose(ours[0], expected, rtol=1e-4, atol=1e-7)
        finished = GradCam.attribute(features[:, n].T, gradients[:, n].T, GradCamConfig(1, steps))
        assert finished.min() >= 0
        assert finished.max() <= 1
