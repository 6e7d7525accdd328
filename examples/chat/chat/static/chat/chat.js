/*
 * A room: posts as they come, and posting without leaving the page.
 *
 * The stream says that there is more, and the page asks for what comes after the last post it shows.
 * So nothing is shown twice or out of order, and nothing is missed when the stream was away.  One
 * question at a time.  Without this script the page shows the last posts, and posting loads it anew.
 */
"use strict";

const log = document.getElementById("log");
const list = log.querySelector("ol");
const form = document.getElementById("say");
const trouble = document.getElementById("trouble");
const link = document.getElementById("link");
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const troubles = { reading: "", sending: "" };
let last = Number(list.lastElementChild?.dataset.number ?? 0);
let asking = false;
let more = false;

function element(name, text) {
	const made = document.createElement(name);
	made.textContent = text;
	return made;
}

function show(post) {
	const item = document.createElement("li");
	item.dataset.number = post.number;
	item.classList.toggle("own", post.author === log.dataset.name);
	const when = element("time", time.format(new Date(post.handled_at)));
	when.dateTime = post.handled_at;
	item.append(element("b", post.author), " ", when, element("p", post.text));
	if (post.number > last + 1) {
		const gap = element("li", `${post.number - last - 1} posts left out`);
		gap.className = "gap";
		list.append(gap);
	}
	list.append(item);
	last = post.number;
}

function toTheEnd() {
	log.scrollTop = log.scrollHeight;
}

async function catchUp() {
	more = true;
	if (asking)
		return;
	asking = true;
	try {
		while (more) {
			more = false;
			const answer = await fetch(`${log.dataset.posts}?after=${last}`);
			if (!answer.ok)
				throw new Error(`The server answers ${answer.status}.`);
			const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
			for (const post of (await answer.json()).posts)
				show(post);
			document.getElementById("nothing").hidden = last > 0;
			if (atEnd)
				toTheEnd();
		}
		say("reading", "");
	} catch (error) {
		say("reading", `New posts cannot be loaded. ${error.message}`);
	}
	asking = false;
}

// What is wrong with reading or with sending stays until that has come out well.
function say(about, text) {
	troubles[about] = text;
	trouble.textContent = Object.values(troubles).join(" ").trim();
	trouble.hidden = trouble.textContent === "";
}

function connected(is) {
	link.textContent = is ? "live" : "connecting …";
	link.classList.toggle("live", is);
}

const stream = new EventSource(log.dataset.events);
stream.addEventListener("open", () => connected(true));
stream.addEventListener("error", () => connected(false)); // the browser tries again by itself
stream.addEventListener("state", (event) => {
	const state = JSON.parse(event.data);
	document.getElementById("posts").textContent = state.posts;
	document.getElementById("people").textContent = state.people;
	if (state.posts > last)
		catchUp();
});

form.addEventListener("submit", async (event) => {
	event.preventDefault();
	try {
		// If the answer gets lost, sending again has the same key: the room hears it once.
		// The redirect that says "done" is meant for pages without a script.
		const answer = await fetch(location.href, { method: "POST", body: new FormData(form), redirect: "manual" });
		if (answer.type !== "opaqueredirect")
			throw new Error(`The server answers ${answer.status}.`);
		form.elements.key.value = crypto.randomUUID();
		form.elements.text.value = "";
		say("sending", "");
		toTheEnd();
	} catch (error) {
		say("sending", `Not sent. ${error.message}`);
	}
	form.elements.text.focus();
});

for (const when of list.querySelectorAll("time"))
	when.textContent = time.format(new Date(when.dateTime));
connected(false);
toTheEnd();
