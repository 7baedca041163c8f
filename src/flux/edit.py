"""The former place of `flux.methods.stable_flow`."""

from flux.methods.stable_flow import Edit, EditRequest, EditResult, EditStep, edit, edit_passes, edit_steps

__all__ = ["Edit", "EditRequest", "EditResult", "EditStep", "edit", "edit_passes", "edit_steps"]
