"""Poses of a clip by the project's own estimators, for the measure `motion`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamactor_core.extract import session, weights
from dreamactor_core.extract.catalogue import MODELS
from dreamactor_core.extract.errors import ExtractError, NobodyError
from dreamactor_core.extract.extractor import Extractor
from dreamactor_core.poses import PoseSequence
from training.config import Config
from training.errors import UserError

_THRESHOLD, _LEAST, _MOST = 0.3, 0.3, 8  # of a detection's score, of a joint's confidence, people


def load_estimator(run: Config) -> Callable[[np.ndarray], PoseSequence]:
    """A function of RGB uint8 (T, H, W, 3) that gives its poses; nobody found is a sequence of empty frames.

    Raises:
        UserError: the measure is asked for and there are no weights, or they do not load.
    """
    folder, model = run.data.pose_weights, MODELS[run.score.pose_model]
    if folder is None:
        raise UserError(
            "score.measures has motion, which estimates poses anew, and data.pose_weights is not given; expected the folder of "
            "the estimator's networks. Give it, or list motion_flow instead, which needs no estimator"
        )
    try:
        paths = [weights.find(file, [Path(folder)]) for file in (model.detector, model.network)]
        absent = [file for file, path in zip((model.detector, model.network), paths, strict=True) if path is None]
        if absent:
            raise weights.missing(absent, Path(folder), "take motion out of score.measures")
        import torch  # it knows whether there is a GPU

        device = session.choose_device(run.data.device, torch.cuda.is_available())
        networks = [session.load(path, device) for path in paths if path is not None]
        extractor = Extractor(model, networks[0], networks[1], _THRESHOLD, _LEAST, _MOST)
    except ExtractError as error:
        raise UserError(str(error)) from error
    lock = threading.Lock()

    def extract(frames: np.ndarray) -> PoseSequence:
        try:
            with lock:  # the networks use all cores, or the GPU, by themselves
                return extractor(iter(frames), len(frames), 24.0).poses
        except NobodyError:
            return PoseSequence([[] for _ in frames], *frames.shape[1:3])
        except ExtractError as error:
            raise UserError(str(error)) from error

    return extract
