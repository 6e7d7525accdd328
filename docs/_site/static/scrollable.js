// What is too wide for its place can be scrolled with the keyboard: it may have the focus then.
"use strict";

function markScrollable() {
  for (const box of document.querySelectorAll("pre, .table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
    } else {
      box.removeAttribute("tabindex");
    }
  }
}

document.addEventListener("DOMContentLoaded", markScrollable);
window.addEventListener("resize", markScrollable);
