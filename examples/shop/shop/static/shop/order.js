// The status of an order, as it changes.
const section = document.querySelector("[data-stream]");
const status = document.getElementById("status");
new EventSource(section.dataset.stream).addEventListener("state", (event) => {
  status.textContent = JSON.parse(event.data);
});
