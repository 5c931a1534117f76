"""Tests against a real ComfyUI: one server for all of them, and ComfyUI's modules for those that import it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bootstrap import SetupError
from bootstrap.host import find_host, link_pack
from headless.client import Client
from headless.server import HostServer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KINDS = ("diffusion_models", "vae", "loras", "text_encoders", "detection")

try:
    HOST = find_host()
    PACK = link_pack(HOST)
except SetupError as error:
    raise pytest.UsageError(str(error)) from error

# ComfyUI's own folder comes first and ours last: both have a module `nodes`, and theirs is the one to find here.
# This folder is on the path for `toys`, its neighbour for `marker_networks`.
sys.path[:] = [
    str(HOST),
    *(entry for entry in sys.path if Path(entry).resolve() not in (ROOT, HOST)),
    str(ROOT),
    str(HERE),
    str(HERE.parent / "networks"),
]

from comfy.cli_args import args  # noqa: E402

# Inside this process ComfyUI computes on the CPU, in float32: what is compared here must not depend on the machine.
# The server, which is another process, takes the GPU if there is one.
args.cpu = True

# a job that is cancelled from outside gets SIGTERM: end the server then too, as for Ctrl-C
signal.signal(signal.SIGTERM, signal.default_int_handler)


def load_package(folder: Path) -> ModuleType:
    """A node pack as ComfyUI loads it: by its file, under a name that no other package can have."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that the server and this process look into as well: what tests put there is found by name."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        (folder / kind).mkdir()
    return folder


@pytest.fixture(scope="session")
def server(shelf: Path) -> Iterator[HostServer]:
    """A running ComfyUI with the pack in it, the tests' own nodes, and no package that only training needs."""
    config = shelf / "extra_model_paths.yaml"
    paths = {"base_path": str(shelf), "custom_nodes": str(HERE / "custom_nodes"), **{kind: kind for kind in KINDS}}
    config.write_text(json.dumps({"tests": paths}))  # YAML takes JSON
    with HostServer(HOST, ["--extra-model-paths-config", str(config)], packs=["toy_nodes"]) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: HostServer) -> Client:
    """A client of that server."""
    return Client(server.url)


@pytest.fixture(scope="session")
def pack(shelf: Path) -> ModuleType:
    """Our pack, loaded into this process as ComfyUI does it, with its and the tests' model folders registered.

    Its modules are attributes: `pack.nodes.conditioning`, `pack.dreamactor_core.layout`.
    """
    import folder_paths

    async def load() -> ModuleType:
        module = load_package(PACK)
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        await extension.get_node_list()
        return module

    for kind in KINDS:
        folder_paths.add_model_folder_path(kind, str(shelf / kind))
    return asyncio.run(load())


@pytest.fixture(scope="session")
def toy_nodes() -> ModuleType:
    """The tests' own nodes, in this process."""
    return load_package(HERE / "custom_nodes" / "toy_nodes")


@pytest.fixture(scope="module")
def base(pack: ModuleType) -> SimpleNamespace:
    """MODEL, CLIP and VAE of the small backbone, without a LoRA."""
    import torch

    with torch.inference_mode():
        model, clip, vae = pack.nodes.loaders.SmallBackboneLoader.execute().args
    return SimpleNamespace(model=model, clip=clip, vae=vae)
