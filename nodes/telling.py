"""Words on a node itself."""

from __future__ import annotations


def show_on_node(text: str, node_id: str | None) -> None:
    """Show lines on the node of that id; None: there is no graph, and nobody to be told."""
    if node_id is not None:
        from server import PromptServer  # the host's, running by then

        PromptServer.instance.send_progress_text(text, node_id)
