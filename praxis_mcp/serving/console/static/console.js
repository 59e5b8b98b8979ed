// What the console's pages need a script for: output and lists that renew themselves. Text of tools is only ever set
// as text. Without this script every page works, and is renewed by loading it again.
"use strict";

const MOST_SHOWN = 262144; // characters of a stream that the page keeps

const say = (text) => {
  const place = document.querySelector("[data-live-state]");
  if (place) {
    place.hidden = !text;
    place.textContent = text;
  }
};

const listen = (address, handlers) => {
  const events = new EventSource(address);
  events.onopen = () => say("Live: new output appears by itself.");
  events.onerror = () => {
    say(events.readyState === EventSource.CLOSED ? "Not live: load the page again." : "The connection is gone; trying again.");
  };
  for (const [name, handle] of Object.entries(handlers)) {
    events.addEventListener(name, (event) => handle(JSON.parse(event.data), events));
  }
};

const follow = (part) => {
  listen(part.dataset.follow, {
    output: ({ stream, text }) => {
      const place = part.querySelector(`[data-stream="${CSS.escape(stream)}"]`);
      const atEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 8;
      place.append(text);
      place.normalize();
      if (place.textContent.length > MOST_SHOWN) {
        place.textContent = place.textContent.slice(-MOST_SHOWN / 2);
      }
      if (atEnd) {
        place.scrollTop = place.scrollHeight;
      }
    },
    end: (_, events) => {
      events.close();
      location.reload();
    },
  });
};

const renew = (part) => {
  listen(part.dataset.renew, {
    changed: async () => {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-renew]");
      if (answer.redirected || !fresh) {
        location.reload();
        return;
      }
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      part.replaceChildren(...fresh.childNodes);
      if (focused) {
        part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
      }
    },
  });
};

document.querySelectorAll("[data-follow]").forEach(follow);
document.querySelectorAll("[data-renew]").forEach(renew);
