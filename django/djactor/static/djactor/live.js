/*
 * The live page: asks for a snapshot every other second and draws what changed.
 *
 * Without this script the page shows one snapshot.  Nothing is asked for while the page is hidden or
 * stopped, nor before the last answer has come.  Text is set as text, never as markup.
 */
"use strict";

(() => {
	const page = document.getElementById("djactor-live");
	const KEPT = 60; // points of a chart
	const history = new Map(); // name of a chart -> its last points
	const svg = "http://www.w3.org/2000/svg";
	const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
	const tenth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
	let before = null;
	let stopped = false;

	const find = (selector) => page.querySelector(selector);

	function keep(name, value) {
		const points = history.get(name) || [];
		points.push(value);
		history.set(name, points.slice(-KEPT));
	}

	function draw(chart, name) {
		const points = history.get(name) || [];
		const top = Math.max(1, ...points);
		const line = document.createElementNS(svg, "polyline");
		chart.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
		chart.setAttribute("preserveAspectRatio", "none");
		line.setAttribute("points", points.map((value, at) =>
			`${KEPT - points.length + at},${19 - 18 * value / top}`).join(" "));
		chart.replaceChildren(line);
	}

	function cell(row, text, chart) {
		const td = document.createElement("td");
		td.textContent = text;
		if (chart) {
			const spark = document.createElementNS(svg, "svg");
			spark.setAttribute("aria-hidden", "true");
			td.append(spark);
			if (chart.startsWith("failures"))
				td.className = "failures";
			draw(spark, chart);
		}
		row.append(td);
	}

	function row(name) {
		const tr = document.createElement("tr");
		const th = document.createElement("th");
		th.scope = "row";
		th.textContent = name;
		tr.append(th);
		return tr;
	}

	function rows(body, made, columns, none) {
		if (made.length === 0) {
			const tr = document.createElement("tr");
			cell(tr, none);
			tr.firstChild.colSpan = columns;
			made.push(tr);
		}
		body.replaceChildren(...made);
	}

	function show(now) {
		const passed = before ? now.at - before.at : 0;
		const failures = (was, is) => passed > 0 && was !== undefined ? Math.max(0, (is - was) / passed) : 0;
		const was = new Map((before ? before.types : []).map((type) => [type.name, type.failed]));
		const totals = {
			rate: now.rate,
			waiting: now.waiting,
			oldest: now.oldest || 0,
			failures: failures(before ? before.failed : undefined, now.failed),
		};
		for (const [name, value] of Object.entries(totals)) {
			keep(name, value);
			find(`[data-figure="${name}"]`).textContent =
				(name === "oldest" || name === "failures" ? tenth : whole).format(value)
				+ (name === "waiting" && now.more ? "+" : "");
			draw(find(`[data-chart="${name}"]`), name);
		}
		rows(find("[data-types]"), now.types.map((type) => {
			const tr = row(type.name);
			const failed = failures(was.get(type.name), type.failed);
			keep(`rate ${type.name}`, type.rate);
			keep(`failures ${type.name}`, failed);
			cell(tr, whole.format(type.waiting));
			cell(tr, type.oldest === null ? "" : tenth.format(type.oldest));
			cell(tr, whole.format(type.rate), `rate ${type.name}`);
			cell(tr, tenth.format(failed), `failures ${type.name}`);
			cell(tr, whole.format(type.handled));
			cell(tr, whole.format(type.failed));
			cell(tr, whole.format(type.dead));
			cell(tr, type.note);
			return tr;
		}), 9, "No actor type is defined.");
		rows(find("[data-workers]"), now.workers.map((worker) => {
			const tr = row(worker.pid);
			for (const text of [worker.role, worker.state, worker.type, worker.message ?? "", worker.seconds ?? ""])
				cell(tr, text);
			return tr;
		}), 6, "No worker runs.");
		find("[data-held]").hidden = !now.held;
		before = now;
	}

	function complain(text) {
		const note = find("[data-error]");
		if (note.textContent !== text)
			note.textContent = text;
		note.hidden = text === "";
	}

	async function refresh() {
		if (!stopped && !document.hidden) {
			try {
				const answer = await fetch(page.dataset.url, { headers: { Accept: "application/json" } });
				const data = await answer.json();
				if (answer.ok)
					show(data);
				complain(answer.ok ? "" : data.error || `The server answers ${answer.status}.`);
			} catch {
				complain("The server does not answer, or you are no longer logged in.");
			}
		}
		setTimeout(refresh, Number(page.dataset.interval));
	}

	const button = find("[data-toggle]");
	button.hidden = false;
	button.addEventListener("click", () => {
		stopped = !stopped;
		button.setAttribute("aria-pressed", String(stopped));
	});
	refresh();
})();
