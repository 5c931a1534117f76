"""Workflows by the server's own description of its nodes: the editor's format as the API's, and what is wrong with a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headless.client import Prompt

Graph = dict[str, Any]  # a workflow as the editor saves it
Info = dict[str, Any]  # the server's object_info
NOTES = ("Note", "MarkdownNote")
_WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}


def inputs_of(node: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """A node's inputs by name, in order: type, options, and whether one must be given."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *rest) in node["input"].get(group, {}).items():
            options = dict(rest[0]) if rest else {}
            if isinstance(kind, list):  # the older form of a combo
                kind, options["options"] = "COMBO", kind
            elif kind == "COMFY_DYNAMICCOMBO_V3":  # its choices may bring inputs; those that we make do not
                kind, options["options"] = "COMBO", [choice["key"] for choice in options["options"]]
            found[name] = (kind, options, group == "required")
    return found


def to_api(graph: Graph, info: Info) -> Prompt:
    """The graph as the editor queues it. Notes and nodes that are muted or bypassed are left out; no link may need them."""
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt: Prompt = {}
    for node in graph["nodes"]:
        kind = node["type"]
        if kind in NOTES or node["mode"] != 0:
            continue
        values, names = node.get("widgets_values") or [], []
        for name, (what, options, _) in inputs_of(info[kind]).items():
            if what in _WIDGETS and not options.get("forceInput"):
                # a seed is followed by what is done to it after a run, a file by its upload button
                extra = any(options.get(more) for more in ("control_after_generate", "image_upload", "video_upload"))
                names += [name, None] if extra else [name]
        assert len(values) == len(names), f"node {node['id']} ({kind}) has widgets {names} and values {values}"
        inputs = {name: value for name, value in zip(names, values, strict=True) if name}
        inputs |= {given["name"]: links[given["link"]] for given in node.get("inputs", []) if given["link"] is not None}
        title = node.get("title") or info[kind]["display_name"] or kind
        prompt[str(node["id"])] = {"inputs": inputs, "class_type": kind, "_meta": {"title": title}}
    assert {origin for origin, _ in links.values()} <= prompt.keys(), "a link comes from a node that is left out"
    return prompt


def loose_links(graph: Graph) -> list[Any]:
    """Links whose ends do not know of them."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    ends = ((link, nodes[link[1]]["outputs"][link[2]], nodes[link[3]]["inputs"][link[4]]) for link in graph["links"])
    return [link for link, out, into in ends if link[0] not in out["links"] or link[0] != into["link"] or link[5] != out["type"]]


def problems(prompt: Prompt, info: Info, may_lack: Callable[[str], bool]) -> list[str]:
    """What a server would refuse or the editor would not have made; `may_lack` says which choices need not be there."""
    found = []
    for key, node in prompt.items():
        where, given = f"node {key} ({node['class_type']})", node["inputs"]
        if node["class_type"] not in info:
            found.append(f"{where} does not exist")
            continue
        declared = inputs_of(info[node["class_type"]])
        found += [f"{where} has no input {name}" for name in given.keys() - declared.keys()]
        for name, (kind, options, required) in declared.items():
            if name in given:
                wrong = _wrong(given[name], kind, options, prompt, info)
                if wrong and not (kind == "COMBO" and isinstance(given[name], str) and may_lack(given[name])):
                    found.append(f"{where}: {name} {wrong}")
            elif required:
                found.append(f"{where}: {name} is missing")
    return found


def _wrong(value: Any, kind: str, options: dict[str, Any], prompt: Prompt, info: Info) -> str | None:
    if isinstance(value, list):
        origin, slot = value
        outputs = info.get(prompt.get(origin, {}).get("class_type"), {}).get("output", [])
        made = outputs[slot] if slot < len(outputs) else "nothing"
        return None if "*" in (made, kind) or made in kind.split(",") else f"takes {kind}, is given {made}"
    if not isinstance(value, _WIDGETS.get(kind, ())) or (isinstance(value, bool) and kind != "BOOLEAN"):
        return f"is {value!r}, not a {kind}"
    if kind == "COMBO":
        return None if value in options["options"] else f"is {value!r}, not one of {options['options']}"
    low, high = options.get("min", value), options.get("max", value)
    if kind in ("INT", "FLOAT") and not low <= value <= high:
        return f"is {value}, not from {low} to {high}"
    return f"is {value}, off its steps" if kind == "INT" and (value - low) % options.get("step", 1) else None
