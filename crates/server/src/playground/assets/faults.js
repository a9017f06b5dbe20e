// Errors at the field they name.

import { byId, element } from "./element.js";
import { openSettings } from "./settings_panel.js";

/** Takes every error off the form. */
export function clearFaults(form) {
  for (const message of form.querySelectorAll(".fault")) message.remove();
  for (const control of form.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    describe(control, null);
  }
  byId("fault").hidden = true;
}

/** Shows a failure at the control called as its `param`, or in the form's own place. */
export function showFault(form, { message, param }) {
  const control = param && controlOf(form, param);
  if (!control) {
    const fault = byId("fault");
    fault.textContent = param ? `${param}: ${message}` : message;
    fault.hidden = false;
    return;
  }
  for (let parent = control.closest("details"); parent; parent = parent.parentElement.closest("details")) {
    parent.open = true;
  }
  if (byId("settings").contains(control)) openSettings(true);
  const id = `fault-of-${control.id}`;
  control.setAttribute("aria-invalid", "true");
  describe(control, id);
  control.closest(".field").append(element("p", { className: "fault", id, role: "alert" }, message));
  control.focus();
}

function controlOf(form, param) {
  const isShown = (control) => control.closest("[hidden]") === null;
  const named = form.elements.namedItem(param);
  if (named && isShown(named)) return named;
  // A key without a control stands in the JSON.
  return param.startsWith("cache_config") && isShown(byId("json")) ? byId("cache-json") : null;
}

/** A control may have a hint already, which stays. */
function describe(control, fault) {
  const hints = (control.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && !id.startsWith("fault-of-"));
  const ids = fault === null ? hints : [fault, ...hints];
  if (ids.length > 0) control.setAttribute("aria-describedby", ids.join(" "));
  else control.removeAttribute("aria-describedby");
}
