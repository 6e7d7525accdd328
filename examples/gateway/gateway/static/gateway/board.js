// The page: what two streams of server-sent events say, and buttons that send requests.

const { buckets, breakers, latency } = document.body.dataset;
const said = document.getElementById("said");
const clients = new Map([...document.querySelectorAll("#clients > li")].map((card) => [card.dataset.name, card]));
const upstreams = new Map([...document.querySelectorAll("#upstreams > li")].map((card) => [card.dataset.name, card]));
const states = { clients: new Map(), upstreams: new Map() };
const token = document.querySelector("[name=csrfmiddlewaretoken]").value;

const put = (card, part, text) => {
  const element = card.querySelector(part);
  if (element.textContent !== text) element.textContent = text;
};

// A bucket's state is that of its last request; what has been refilled since is counted here.
function showBucket(name) {
  const card = clients.get(name), state = states.clients.get(name);
  const tokens = Math.max(0, Math.min(state.burst, state.tokens + state.rate * (Date.now() / 1000 - state.at)));
  const bar = card.querySelector(".bar");
  bar.setAttribute("aria-valuenow", Math.floor(tokens));
  bar.firstElementChild.style.width = `${100 * tokens / state.burst}%`;
  card.classList.toggle("empty", tokens < 1);
  put(card, ".tokens", `${Math.floor(tokens)} ${Math.floor(tokens) === 1 ? "token" : "tokens"}`);
  put(card, ".counts", `${state.allowed.toLocaleString()} passed, ${state.refused.toLocaleString()} refused`);
}

function showBreaker(name) {
  const card = upstreams.get(name), state = states.upstreams.get(name);
  const left = Math.max(0, Math.ceil(state.until - Date.now() / 1000));
  card.className = state.mode;
  put(card, ".mode", { closed: "closed", open: `open, ${left} s`, half_open: "half open" }[state.mode]);
  put(card, ".failures", state.mode === "half_open" ? (state.probing ? "a probe is out" : "waits for a probe")
    : state.failures ? `${state.failures} failures in a row` : "no failures");
  put(card, ".counts", `${state.passed.toLocaleString()} passed, ${state.refused.toLocaleString()} refused`);
}

function listen(address, known, cards, show) {
  new EventSource(address).addEventListener("state", (event) => {
    const { key, state } = JSON.parse(event.data);
    if (!cards.has(key)) return;
    known.set(key, state);
    show(key);
  });
}

listen(buckets, states.clients, clients, showBucket);
listen(breakers, states.upstreams, upstreams, showBreaker);
setInterval(() => {
  for (const name of states.clients.keys()) showBucket(name);
  for (const name of states.upstreams.keys()) showBreaker(name);
}, 200);

async function send(client, count) {
  const targets = [...upstreams.keys()];
  const answers = await Promise.all(Array.from({ length: count }, (_, i) =>
    fetch(`api/${targets[i % targets.length]}/from/the/page`, { headers: { "X-Client": client } })));
  const byStatus = new Map();
  for (const { status } of answers) byStatus.set(status, (byStatus.get(status) ?? 0) + 1);
  said.textContent = `${client}: ` + [...byStatus].sort().map(([status, n]) => `${n} with ${status}`).join(", ");
}

document.addEventListener("click", async ({ target }) => {
  const { count, address, fail } = target.dataset;
  if (count) await send(target.closest("li").dataset.name, Number(count));
  if (address) {
    const body = new URLSearchParams({ fail, csrfmiddlewaretoken: token });
    const { ok } = await fetch(address, { method: "POST", body });
    const name = target.closest("li").dataset.name;
    said.textContent = ok ? `${name} ${fail === "1" ? "fails from now on" : "is well again"}` : `${name} cannot be told`;
  }
});

async function showLatency() {
  const steps = await (await fetch(latency)).json();
  const rows = Object.entries(steps).map(([step, { p50, p95, p99 }]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.textContent = { bucket: "ask the bucket", breaker: "ask the breaker" }[step] ?? `the ${step}`;
    row.append(head, ...[p50, p95, p99].map((value) => {
      const cell = document.createElement("td");
      cell.textContent = value.toFixed(1);
      return cell;
    }));
    return row;
  });
  document.querySelector("#latency tbody").replaceChildren(...rows);
}

(async function refresh() {
  if (!document.hidden) await showLatency().catch(() => {});
  setTimeout(refresh, 2000);
})();
