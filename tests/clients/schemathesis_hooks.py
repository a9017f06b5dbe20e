"""Makes the generated requests cheap: few steps and pictures. What makes a bad request bad stays."""

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

LABELS = ["red apple", "fox face", "sunflower", "rocket"]
FEW = {"num_inference_steps": (2, 200, 50), "n": (2, 10, 1)}
# Of a sweep, which has one picture.
FEW_OF_SWEEP = {"num_inference_steps": (1, 200, 50), "repeats": (1, 5, 1)}


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, object]) -> None:
    body = case.body
    if not isinstance(body, dict):
        return
    few_of_body = FEW_OF_SWEEP if case.path.startswith("/v1/cache/sweeps") else FEW
    for field, (few, most, default) in few_of_body.items():
        value = body.get(field)
        if value is None or (type(value) is int and 1 <= value <= most):
            body[field] = min(value or default, few)
    # A prompt that is no label is refused before anything else is looked at.
    prompt = body.get("prompt")
    is_good = case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    if is_good and isinstance(prompt, str) and len(prompt) % 5 != 0:
        body["prompt"] = LABELS[len(prompt) % len(LABELS)]
