// An answer of the server for people: status, pictures, headers, the body in a readable form.

/** Longer strings in JSON are cut: pictures have hundreds of thousands of characters. */
const LONGEST_STRING = 200;
const MOST_CHARACTERS = 200_000;

export class Answer {
  #place;
  #pictures = make("div", "");

  constructor(place) {
    this.#place = place;
    for (const image of place.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    place.replaceChildren(make("p", "Waiting for the answer"));
    place.hidden = false;
  }

  /** Shows it as it arrives; returns the body of a JSON answer. */
  async show(response) {
    const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    const status = make("p", "");
    status.append(make("strong", `${response.status} ${response.statusText}`.trim()));
    this.#place.replaceChildren(status, this.#pictures, make("pre", headers));
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream")) return this.#showStream(response);
    if (type.startsWith("image/")) return this.#showImage(await response.blob());
    const text = await response.text();
    if (!type.includes("json")) return this.#add(make("pre", cut(text)));
    const body = JSON.parse(text);
    this.#add(make("pre", readable(body)));
    this.#showPictures(body);
    return body;
  }

  fail(sentence) {
    this.#place.replaceChildren(make("p", sentence));
  }

  async #showStream(response) {
    const shown = make("pre", "");
    this.#add(shown);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return null;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) this.#showEvent(event, shown);
    }
  }

  #showEvent(event, shown) {
    const [before, data] = event.split("\ndata: ");
    if (data === undefined) return shown.append(`${event}\n\n`);
    const body = JSON.parse(data);
    shown.append(`${before}\ndata: ${readable(body)}\n\n`);
    this.#showPictures(body);
  }

  /** Every picture in the body, wherever it stands. */
  #showPictures(body) {
    const format = body.output_format ?? "png";
    JSON.stringify(body, (key, value) => {
      if (key === "b64_json" && typeof value === "string") this.#showImage(fileOf(value, format));
      return value;
    });
  }

  #showImage(file) {
    const image = make("img", "");
    image.src = URL.createObjectURL(file);
    image.alt = "A picture of the answer";
    this.#pictures.append(image);
  }

  #add(element) {
    this.#place.append(element);
  }
}

function make(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (tag === "pre") made.tabIndex = 0;
  return made;
}

function readable(body) {
  const shorter = (_, value) =>
    typeof value === "string" && value.length > LONGEST_STRING ? `${value.slice(0, 24)}... (${value.length} characters)` : value;
  return cut(JSON.stringify(body, shorter, 2));
}

const cut = (text) => (text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}\n... (${text.length} characters)` : text);

function fileOf(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}
