/*
 * The live page: asks for a snapshot every other second and shows what changed.  Once a minute it asks for
 * what the server has counted in the past, for the charts.
 *
 * Without this script the page shows one snapshot.  Nothing is asked for while the page is hidden or
 * stopped (but what somebody chooses is), nor before the last answer has come.  Rows stay where they are and only their texts change,
 * so that neither focus nor selection is lost.  Text is set as text, never as markup.
 */
"use strict";

(() => {
	const page = document.getElementById("djactor-live");
	if (!page)
		return;
	const interval = Number(page.dataset.interval); // milliseconds
	const KEPT = 60; // points of a chart that shows what the page itself has seen
	const AGAIN = 60; // seconds until the past is asked for again
	const SVG = "http://www.w3.org/2000/svg";
	const language = document.documentElement.lang || undefined;
	const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
	const tenth = new Intl.NumberFormat(language, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
	const find = (selector) => page.querySelector(selector);
	let before = null;
	let stopped = false;

	// As djactor.admin.display does.
	const count = (n) => n < 100 && !Number.isInteger(n) ? tenth.format(n) : whole.format(n);

	function duration(seconds) {
		if (seconds === null || seconds === undefined)
			return "";
		if (seconds < 60) {
			for (const [unit, size] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]) {
				if (seconds >= size) {
					const n = seconds / size;
					return `${n < 100 ? n.toFixed(1).replace(/\.0$/, "") : n.toFixed(0)} ${unit}`;
				}
			}
			return "0 s";
		}
		const whole = Math.floor(seconds);
		for (const [unit, size, lesser, of] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
			if (whole >= size) {
				const rest = Math.floor(whole % size / of);
				return `${count(Math.floor(whole / size))} ${unit}${rest ? ` ${rest} ${lesser}` : ""}`;
			}
		}
	}

	function element(name, text, kind) {
		const made = document.createElement(name);
		if (text !== undefined)
			made.textContent = text;
		if (kind)
			made.className = kind;
		return made;
	}

	function say(node, text) {
		if (node.textContent !== text)
			node.textContent = text;
	}

	/*
	 * A line with the area below it, on a base line: of the last two minutes, as the page has seen them, or
	 * of the past as the server has it, and then one point for the mean of what the page has seen since.
	 * A null is a gap.
	 */
	class Chart {
		constructor(height) {
			this.points = []; // of [time, value]
			this.past = null;
			this.height = height;
			this.svg = document.createElementNS(SVG, "svg");
			this.svg.setAttribute("preserveAspectRatio", "none");
			this.svg.setAttribute("class", "djactor-chart");
			for (const [name, kind] of [["path", "area"], ["path", "line"], ["path", "base"]]) {
				this[kind] = document.createElementNS(SVG, name);
				this[kind].setAttribute("class", kind);
				this.svg.append(this[kind]);
			}
			this.svg.setAttribute("aria-hidden", "true");
		}

		get shown() {
			if (!this.past)
				return this.points.map(([, value]) => value);
			const since = this.points.filter(([at, value]) => at > this.past.until && value !== null);
			const mean = since.reduce((sum, [, value]) => sum + value, 0) / since.length;
			return [...this.past.values, since.length ? mean : null];
		}

		get peak() {
			return Math.max(0, ...this.shown.filter((n) => n !== null));
		}

		add(at, value) {
			this.points = [...this.points, [at, value]].slice(-KEPT);
			this.draw();
		}

		/* What the server has of the past, with the time where that ends; null: nothing but what was seen. */
		show(past) {
			this.past = past;
			this.draw();
		}

		draw() {
			const shown = this.shown;
			const width = (this.past ? shown.length : KEPT) - 1;
			const top = this.peak || 1;
			const left = width + 1 - shown.length;
			const place = (n, at) => `${left + at} ${(this.height - (this.height - 2) * n / top).toFixed(2)}`;
			let line = "";
			let area = "";
			for (let at = 0; at < shown.length; at++) {
				if (shown[at] === null)
					continue;
				const first = at;
				while (at + 1 < shown.length && shown[at + 1] !== null)
					at++;
				// a point between two gaps gets some width
				const part = shown.slice(first, at + 1).map((n, i) => place(n, first + i)).join("L") + (first === at ? "h.5" : "");
				line += `M${part}`;
				area += `M${part}V${this.height}H${left + first}Z`;
			}
			this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
			this.base.setAttribute("d", `M0 ${this.height}H${width}`);
			this.line.setAttribute("d", line);
			this.area.setAttribute("d", area);
		}
	}

	class Tile {
		constructor(name, format, about) {
			this.section = find(`[data-tile="${name}"]`);
			this.figure = this.section.querySelector(".figure");
			this.about = about;
			this.format = format;
			this.chart = new Chart(40);
			this.chart.svg.removeAttribute("aria-hidden");
			this.chart.svg.setAttribute("role", "img");
			this.chart.svg.setAttribute("aria-label", `${about}: no figures yet`);
			this.small = element("p", undefined, "small");
			this.peak = element("p", undefined, "peak");
			const axis = element("p", undefined, "axis");
			for (const hidden of [this.peak, axis])
				hidden.setAttribute("aria-hidden", "true");
			this.from = element("span");
			axis.append(this.from, element("span", "now"));
			this.reaches(null);
			this.section.append(this.small, this.peak, this.chart.svg, axis);
		}

		/* A value that is no point of the chart is but a figure: the first, which is of another kind. */
		show(at, value, { more = "", small = "", isPoint = true } = {}) {
			this.value = value;
			if (isPoint)
				this.chart.add(at, value);
			this.describe();
			say(this.figure, this.format(value) + more);
			say(this.small, small);
		}

		reaches(past) {
			this.span = duration(past ? past.seconds : KEPT * interval / 1000);
			say(this.from, `${this.span} ago`);
			this.chart.show(past);
			this.describe();
		}

		describe() {
			const peak = this.format(this.chart.peak);
			const any = this.chart.shown.length > 0;
			say(this.peak, any ? `peak ${peak}` : "");
			if (any && this.value !== undefined)
				this.chart.svg.setAttribute("aria-label",
					`${this.about}, the last ${this.span}: at most ${peak}, now ${this.format(this.value)}`);
		}
	}

	/* The rows of a table body, each under a name, in the order of the last update. */
	class Rows {
		constructor(body, make) {
			this.body = body;
			this.make = make;
			this.rows = new Map();
			body.replaceChildren();
		}

		show(items, name) {
			const names = new Set(items.map(name));
			for (const [known, row] of this.rows) {
				if (!names.has(known)) {
					row.tr.remove();
					this.rows.delete(known);
				}
			}
			let place = this.body.firstChild;
			for (const item of items) {
				let row = this.rows.get(name(item));
				if (!row) {
					row = this.make(item);
					this.rows.set(name(item), row);
				}
				if (row.tr === place)
					place = place.nextSibling;
				else
					this.body.insertBefore(row.tr, place);
				row.update(item);
			}
		}
	}

	function tableRow(head, ...kinds) {
		const tr = element("tr");
		tr.append(head);
		head.scope = "row";
		const cells = kinds.map((kind) => element("td", undefined, kind));
		tr.append(...cells);
		return [tr, ...cells];
	}

	function badge(cell, word, note) {
		const text = `${word} ${note}`;
		if (cell.textContent !== text)
			cell.replaceChildren(element("span", word, `djactor-badge ${word}`), ` ${note}`);
	}

	function link(text, address) {
		const made = element("a", text);
		made.href = address;
		return made;
	}

	/* The address of a row in the admin; the admin quotes some characters with underscores. */
	function address(pattern, placeholder, key) {
		const quoted = String(key).replace(/[":/_#?;@&=+$,[\]<>%\n\\]/g,
			(c) => `_${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
		return pattern.replace(placeholder, encodeURIComponent(quoted));
	}

	function typeRow(type) {
		const head = element("th");
		head.append(link(type.name, address(page.dataset.typeUrl, "TYPE", type.name)));
		const [tr, state, waiting, oldest, retrying, scheduled, rateChart, rate, failuresChart, failures, waitChart, wait, run, letters] =
			tableRow(head, "", "n", "n", "n", "n", "spark", "n", "spark", "n", "spark", "n", "n", "n");
		const charts = { turns: new Chart(20), failures: new Chart(20), wait: new Chart(20) };
		rateChart.append(charts.turns.svg);
		failuresChart.append(charts.failures.svg);
		waitChart.append(charts.wait.svg);
		const number = (cell, n, more) => {
			say(cell, n ? count(n) + more : "0");
			cell.classList.toggle("zero", !n);
		};
		return {
			tr,
			charts,
			update(now) {
				badge(state, now.state, now.note);
				number(waiting, now.waiting, "");
				say(oldest, duration(now.oldest));
				number(retrying, now.retrying, "");
				number(scheduled, now.scheduled, "");
				number(rate, now.turns, "");
				number(failures, now.failures, "");
				if (now.measured) {
					charts.turns.add(now.at, now.turns);
					charts.failures.add(now.at, now.failures);
				}
				charts.wait.add(now.at, now.wait);
				say(wait, duration(now.wait) + (now.late ? ` > ${duration(now.target)}` : ""));
				wait.classList.toggle("late", now.late);
				say(run, duration(now.run));
				const text = now.letters ? count(now.letters) + (now.more_letters ? "+" : "") : "0";
				if (letters.textContent !== text)
					letters.replaceChildren(now.letters
						? link(text, `${page.dataset.lettersUrl}?type=${encodeURIComponent(now.name)}`) : text);
				letters.classList.toggle("zero", !now.letters);
				tr.classList.toggle("idle", now.idle);
			},
		};
	}

	function workerRow(worker) {
		const [tr, role, state, since, type, message] = tableRow(element("th", String(worker.pid)), "", "", "n", "", "n");
		return {
			tr,
			update(now) {
				say(role, now.role);
				badge(state, now.state, "");
				say(since, duration(now.seconds));
				say(type, now.type);
				const text = now.message === null ? "" : String(now.message);
				if (message.textContent !== text)
					message.replaceChildren(text
						? link(text, address(page.dataset.messageUrl, "MESSAGE", text)) : "");
			},
		};
	}

	function hostRow(host) {
		const [tr, name, version, role, state, since, claims, lease, types] =
			tableRow(element("th", String(host.pid)), "", "", "", "", "n", "n", "n", "");
		return {
			tr,
			update(now) {
				say(name, now.name);
				say(version, now.version);
				say(role, now.role);
				badge(state, now.state, "");
				say(since, duration(now.seconds));
				say(claims, count(now.claims));
				say(lease, duration(Math.max(0, now.lease)));
				say(types, now.types.join(", "));
			},
		};
	}

	const tiles = {
		rate: new Tile("rate", count, "Turns a second"),
		waiting: new Tile("waiting", count, "Messages that wait"),
		oldest: new Tile("oldest", duration, "Age of the oldest message that waits"),
		failures: new Tile("failures", count, "Failed attempts a second"),
		letters: new Tile("letters", count, "Dead letters"),
		busy: new Tile("busy", count, "Workers at work"),
	};
	const range = find("[data-range] select");
	let types = null;
	let workers = null;
	let hosts = null;

	function show(now) {
		const passed = before ? now.at - before.at : 0;
		const perSecond = (was, is) => passed > 0 && was !== undefined ? Math.max(0, is - was) / passed : 0;
		const was = new Map((before ? before.types : []).map((type) => [type.name, type]));
		for (const type of now.types) {
			const known = was.get(type.name);
			type.at = now.at;
			type.turns = known ? perSecond(known.handled, type.handled) : type.rate;
			type.measured = Boolean(known);
			type.failures = perSecond(known && known.failed, type.failed);
			type.more_letters = now.more_letters;
			type.idle = type.state === "running" && type.letters === 0
				&& type.waiting + type.retrying + type.scheduled + type.rate + type.failures === 0;
		}
		const later = [[now.retrying, "to be retried"], [now.scheduled, "scheduled"]]
			.filter(([n]) => n > 0).map(([n, words]) => `+ ${count(n)} ${words}`).join(", ");
		tiles.rate.show(now.at, before ? perSecond(before.handled, now.handled) : now.rate, { isPoint: Boolean(before) });
		tiles.waiting.show(now.at, now.waiting, { more: now.more ? "+" : "", small: later });
		tiles.oldest.show(now.at, now.oldest || 0);
		tiles.failures.show(now.at, perSecond(before ? before.failed : undefined, now.failed), { isPoint: Boolean(before) });
		tiles.letters.show(now.at, now.letters, { more: now.more_letters ? "+" : "" });
		tiles.busy.show(now.at, now.busy, { small: `of ${now.workers.length} that run` });

		types ??= new Rows(find("[data-types]"), typeRow);
		workers ??= new Rows(find("[data-workers]"), workerRow);
		types.show(now.types, (type) => type.name);
		showPast();
		workers.show(now.workers, (worker) => worker.pid);
		hosts ??= new Rows(find("[data-hosts]"), hostRow);
		hosts.show(now.hosts, (host) => host.id);
		find("[data-hosting]").hidden = now.hosts.length === 0;
		find("[data-none]").hidden = now.types.length > 0;
		find("[data-idle-workers]").hidden = now.workers.length > 0;
		find("[data-more]").hidden = !now.more_types;
		say(find("[data-more] span"), count(now.more_types));
		find("[data-held]").hidden = !now.held;
		before = now;
	}

	let past = null; // what the server has answered last
	let pastAt = 0; // when it was asked, by the page's clock
	let pastShown = "";

	/* Charts of the past: of the tiles, and of the rows that there are, which may come and go. */
	function showPast() {
		const seconds = past && past.spans * past.step;
		const chart = (spans, figure, missing) => {
			if (!past)
				return null;
			const values = new Array(past.spans).fill(missing);
			for (const span of spans)
				values[span[0]] = figure(span);
			return { values, seconds, until: past.until };
		};
		const turns = ([, handled]) => handled / past.step;
		const failures = ([, , failed]) => failed / past.step;
		const shown = past ? `${range.value} ${past.until}` : "";
		if (shown !== pastShown) {
			tiles.rate.reaches(chart(past && past.all, turns, 0));
			tiles.failures.reaches(chart(past && past.all, failures, 0));
		}
		for (const [name, row] of types ? types.rows : []) {
			if (row.past === shown)
				continue;
			const spans = past ? past.types[name] || [] : [];
			row.charts.turns.show(chart(spans, turns, 0));
			row.charts.failures.show(chart(spans, failures, 0));
			row.charts.wait.show(chart(spans, ([, , , wait]) => wait, null));
			row.past = shown;
		}
		pastShown = shown;
	}

	/* Asks for the past when it is time, or another range was chosen.  Without an answer the charts stay as they are. */
	async function askPast() {
		const asked = range.value;
		if (!asked) {
			past = null;
			showPast();
			return;
		}
		pastAt = performance.now();
		try {
			const url = new URL(page.dataset.historyUrl, window.location.href);
			url.searchParams.set("range", asked);
			const answer = await fetch(url, { headers: { Accept: "application/json" } });
			const data = await answer.json();
			if (answer.ok && range.value === asked) {
				past = data;
				showPast();
			}
		} catch {
			// the next snapshot says what is the matter
		}
	}

	function complain(text) {
		say(find("[data-error]"), text);
		find("[data-error]").hidden = text === "";
	}

	function status() {
		const at = before ? new Date(before.at * 1000).toLocaleTimeString(language, { hour12: false }) : "";
		say(find("[data-status]"), stopped ? `Stopped at ${at}` : `As of ${at}, every ${duration(interval / 1000)}`);
	}

	async function refresh() {
		if (!stopped && !document.hidden) {
			try {
				const answer = await fetch(page.dataset.url, { headers: { Accept: "application/json" } });
				const data = await answer.json();
				if (answer.ok && !stopped)	// since it was asked for
					show(data);
				complain(answer.ok ? "" : `The database cannot be read: ${data.error || answer.status}`);
			} catch {
				complain("The server does not answer, or you are no longer logged in. The figures are old.");
			}
			status();
			if (range.value && performance.now() - pastAt > AGAIN * 1000)
				await askPast();
		}
		setTimeout(refresh, interval);
	}

	const button = find("[data-toggle]");
	button.hidden = false;
	button.addEventListener("click", () => {
		stopped = !stopped;
		say(button, stopped ? "Refresh again" : "Stop refreshing");
		status();
	});
	const idle = find("[data-idle]");
	idle.hidden = false;
	idle.firstElementChild.addEventListener("change", (event) =>
		find(".djactor-types").classList.toggle("active-only", event.target.checked));
	find("[data-range]").hidden = false;
	range.addEventListener("change", askPast);
	askPast();
	refresh();
})();
