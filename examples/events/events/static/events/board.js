// The page: what two streams of server-sent events say. EventSource connects again by itself.

const devices = document.getElementById("devices");
const summary = document.getElementById("summary");
const cards = new Map();
const counts = new Map();
let open = 0;

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const number = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

function say() {
  const events = [...counts.values()].reduce((sum, count) => sum + count, 0);
  summary.textContent = `${cards.size} devices · ${events.toLocaleString()} events · ` +
    (open ? `${open} ${open === 1 ? "alert" : "alerts"} on` : "all is well");
}

function card(name) {
  if (!cards.has(name)) {
    const made = document.getElementById("device").content.firstElementChild.cloneNode(true);
    made.querySelector("h3").textContent = name;
    const after = [...cards.keys()].filter((other) => other > name).sort()[0];
    devices.insertBefore(made, after ? cards.get(after) : null);
    cards.set(name, made);
  }
  return cards.get(name);
}

function points(values) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  return values.map((value, i) => `${(39 - values.length + 1 + i) * 3},${28 - (value - low) / span * 26}`).join(" ");
}

function showDevice({ key, state }) {
  const shown = card(key);
  shown.className = state.alerts.join(" ");
  shown.querySelector(".alerts").textContent = state.alerts.join(", ");
  shown.querySelector(".value").textContent = number.format(state.value);
  shown.querySelector("polyline").setAttribute("points", points(state.recent));
  const { count, mean, low, high } = state.minute;
  shown.querySelector(".minute").textContent =
    `mean ${number.format(mean)}, ${number.format(low)} to ${number.format(high)}\nof ${count} events this minute`;
  counts.set(key, state.count);
  say();
}

function row(alert) {
  const made = document.createElement("li");
  made.className = alert.resolved_at ? "over" : alert.kind;
  const [what, when] = [document.createElement("strong"), document.createElement("span")];
  what.textContent = `${alert.device_id} ` +
    (alert.kind === "hot" ? `is hot: ${number.format(alert.value)}` : "is silent");
  when.textContent = time.format(new Date(alert.raised_at)) +
    (alert.resolved_at ? ` – ${time.format(new Date(alert.resolved_at))}` : " – now");
  made.append(what, when);
  return made;
}

function listen(address, show) {
  const stream = new EventSource(address);
  stream.addEventListener("state", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("error", () => { summary.textContent = "Connecting …"; });
  stream.addEventListener("open", say);
}

listen(document.body.dataset.devices, showDevice);
listen(document.body.dataset.alerts, (state) => {
  open = state.open;
  document.getElementById("alerts").replaceChildren(...state.latest.map(row));
  say();
});
