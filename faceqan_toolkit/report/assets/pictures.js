// Thumbnails, 64 to a sheet, and photos; inside the page, or files in a folder beside it.

const SIDE = 112;
const PER_LINE = 8;
const PER_SHEET = 64;

class Pictures {
  constructor(meta, table) {
    this.meta = meta;
    this.table = table;
    this.urls = new Map();
  }

  // An <img> of a face's crop; null if there is none.
  thumbnail(row) {
    if (!this.meta.pictures || this.table.value("has_thumbnail", row) !== 1) return null;
    const place = row % PER_SHEET;
    const image = element("img", { alt: "", width: SIDE, height: SIDE, decoding: "async" });
    image.draggable = false;
    const left = (place % PER_LINE) * SIDE;
    const top = Math.floor(place / PER_LINE) * SIDE;
    image.style.objectPosition = `-${left}px -${top}px`;
    image.src = this.url("sheet", Math.floor(row / PER_SHEET), "");
    return image;
  }

  // The address and, if known, the size of a row's photo; null if there is none to show.
  photo(row) {
    const { table, meta } = this;
    if (meta.photos === "linked") {
      const url = location.protocol === "file:" ? fileUrl(table.value("root", row), table.value("path", row)) : null;
      return url && { url, size: null };
    }
    const number = meta.photos === "copied" ? table.value("photo", row) : null;
    const script = number === null ? null : document.getElementById(`photo-${number}`);
    if (!script) return null;
    return { url: this.url("photo", number, "photos/"), size: JSON.parse(script.dataset.size) };
  }

  url(kind, number, subfolder) {
    const name = `${kind}-${number}`;
    if (!this.urls.has(name)) {
      const { folder } = this.meta;
      const file = kind === "photo" ? `${number}.jpg` : `${name}.jpg`;
      this.urls.set(name, folder === null ? blobUrl(name) : `${folder}/${subfolder}${file}`);
    }
    return this.urls.get(name);
  }
}

// Bytes as an address: quicker than a long data: address in every image.
function blobUrl(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
}

// Results show paths with bytes that are no text as %XX; those stand in addresses the same way.
function fileUrl(root, path) {
  if (!root || root.startsWith("//")) return null;
  const encode = (text) =>
    text
      .split(/(%[0-9A-F]{2})/)
      .map((part, index) => (index % 2 ? part : encodeURIComponent(part).replaceAll("%2F", "/").replaceAll("%3A", ":")))
      .join("");
  return `file://${root.startsWith("/") ? "" : "/"}${encode(root)}/${encode(path)}`;
}
