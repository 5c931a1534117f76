"""The shipped subgraphs hold the same nodes as the workflow that shows and runs them, and the server offers them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from graphs import Graph, loose_links, problems, to_api
from toys import ROOT

from headless.client import Client, Prompt
from headless.server import HostServer

SHOWN_BY = {"Prompt by a Local Model (DreamActor)": "marionette_pose_text_local"}
PATHS = sorted((ROOT / "subgraphs").glob("*.json"))
BORDER = (-10, -20)  # where the inputs come in and the outputs go out


def definition(path: Path) -> dict[str, Any]:
    """The subgraph in a file."""
    (found,) = json.loads(path.read_text("utf-8"))["definitions"]["subgraphs"]
    return found


def inside(subgraph: dict[str, Any]) -> Graph:
    """Its nodes as a graph of their own, cut off from its inputs and outputs."""
    subgraph = copy.deepcopy(subgraph)
    order = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    kept = [[link[name] for name in order] for link in subgraph["links"] if not {link["origin_id"], link["target_id"]} & {*BORDER}]
    ids = {link[0] for link in kept}
    for node in subgraph["nodes"]:
        for given in node["inputs"]:
            given["link"] = given["link"] if given["link"] in ids else None
        for made in node["outputs"]:
            made["links"] = [link for link in made["links"] if link in ids]
    return {"nodes": subgraph["nodes"], "links": kept}


def by_title(prompt: Prompt, titles: set[str]) -> dict[str, Any]:
    """Nodes by title, with the titles of what they are connected to; what is not among `titles` is left out."""

    def told(value: Any) -> Any:
        return (prompt[value[0]]["_meta"]["title"], value[1]) if isinstance(value, list) else value

    found = {}
    for node in prompt.values():
        if node["_meta"]["title"] in titles:
            inputs = {name: told(value) for name, value in node["inputs"].items()}
            inner = {name: value for name, value in inputs.items() if not isinstance(value, tuple) or value[0] in titles}
            found[node["_meta"]["title"]] = (node["class_type"], inner)
    return found


def test_each_is_shown_by_a_workflow() -> None:
    assert {path.stem for path in PATHS} == set(SHOWN_BY)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_is_what_the_workflow_runs(path: Path, client: Client) -> None:
    info, subgraph = client.object_info(), definition(path)
    graph = inside(subgraph)
    assert loose_links(graph) == []
    made = to_api(graph, info)
    titles = {node["_meta"]["title"] for node in made.values()}
    shown: Prompt = json.loads((ROOT / "workflows" / "api" / f"{SHOWN_BY[path.stem]}.json").read_text("utf-8"))
    assert by_title(made, titles) == by_title(shown, titles)
    assert [text for text in problems(made, info, lambda value: value.endswith(".safetensors")) if "is missing" not in text] == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_its_inputs_and_outputs_lead_somewhere(path: Path) -> None:
    subgraph = definition(path)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    links = {link["id"]: link for link in subgraph["links"]}
    for k, given in enumerate(subgraph["inputs"]):
        for link in (links[number] for number in given["linkIds"]):
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert (link["origin_id"], link["origin_slot"], target["link"]) == (BORDER[0], k, link["id"])
            assert given["type"] == link["type"] and set(given["type"].split(",")) <= set(target["type"].split(","))
    for k, made in enumerate(subgraph["outputs"]):
        for link in (links[number] for number in made["linkIds"]):
            origin = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert (link["target_id"], link["target_slot"]) == (BORDER[1], k) and link["id"] in origin["links"]
            assert origin["type"] == made["type"] == link["type"]
    (placed,) = json.loads(path.read_text("utf-8"))["nodes"]
    assert placed["type"] == subgraph["id"] and placed["title"] == subgraph["name"] == path.stem
    for side in ("inputs", "outputs"):
        assert [(slot["name"], slot["type"]) for slot in placed[side]] == [(slot["name"], slot["type"]) for slot in subgraph[side]]
    for number, widget in placed["properties"]["proxyWidgets"]:
        assert widget in [given["name"] for given in nodes[int(number)]["inputs"] if "widget" in given]


def test_the_server_offers_them(server: HostServer) -> None:
    listed = requests.get(f"{server.url}/global_subgraphs", timeout=10).json()
    folder = next(node.path.name for node in server.custom_nodes() if node.path.exists() and node.path.samefile(ROOT))
    ours = {entry["name"]: key for key, entry in listed.items() if entry["info"]["node_pack"] == f"custom_nodes.{folder}"}
    assert set(ours) == set(SHOWN_BY)
    for path in PATHS:
        served = requests.get(f"{server.url}/global_subgraphs/{ours[path.stem]}", timeout=10).json()
        assert served["data"] == path.read_text("utf-8")
