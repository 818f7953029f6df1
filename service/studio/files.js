/** Bytes of files: text in PNGs, arrays in npz. */

const HEAD = 33; // bytes of a PNG's signature and IHDR, which text goes behind
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** @param {Uint8Array} bytes */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/**
 * Return a PNG with texts (chunks tEXt, PNG specification 11.3.3.2); its pixels stay as they are.
 * @param {Uint8Array} png @param {Record<string, string>} texts Latin-1
 */
export function addTexts(png, texts) {
  const chunks = Object.entries(texts).map(([keyword, text]) => {
    const content = Uint8Array.from(`tEXt${keyword}\0${text}`, (char) => char.charCodeAt(0));
    const chunk = new Uint8Array(content.length + 8);
    new DataView(chunk.buffer).setUint32(0, content.length - 4);
    chunk.set(content, 4);
    new DataView(chunk.buffer).setUint32(content.length + 4, crc32(content));
    return chunk;
  });
  return new Blob([png.slice(0, HEAD), ...chunks, png.slice(HEAD)], { type: "image/png" });
}

/** Return the texts of a PNG by keyword; none if the bytes are no PNG. @param {ArrayBuffer} buffer */
export function readTexts(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  /** @type {Record<string, string>} */
  const texts = {};
  if (bytes.length < HEAD || view.getUint32(0) !== 0x89504e47) return texts;
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const content = bytes.subarray(at + 4, at + 8 + view.getUint32(at));
    const text = Array.from(content, (code) => String.fromCharCode(code)).join("");
    if (!text.startsWith("tEXt") || crc32(content) !== view.getUint32(at + 4 + content.length)) continue;
    const end = text.indexOf("\0");
    texts[text.slice(4, end)] = text.slice(end + 1);
  }
  return texts;
}

/**
 * Return the rows of a two-dimensional float32 array in an npz file, as numpy stores it without compression.
 * @param {ArrayBuffer} buffer @param {string} name
 */
export function readRows(buffer, name) {
  const view = new DataView(buffer);
  const latin = (/** @type {number} */ start, /** @type {number} */ length) =>
    String.fromCharCode(...new Uint8Array(buffer, start, length));
  for (let at = 0; view.getUint32(at, true) === 0x04034b50; ) {
    const [size, named, extra] = [view.getUint32(at + 18, true), view.getUint16(at + 26, true), view.getUint16(at + 28, true)];
    const start = at + 30 + named + extra;
    if (latin(at + 30, named) === `${name}.npy`) {
      const data = start + 10 + view.getUint16(start + 8, true);
      const columns = Number(/, (\d+)\)/.exec(latin(start + 10, data - start - 10))?.[1]);
      const values = new Float32Array(buffer.slice(data, start + size));
      return Array.from({ length: values.length / columns }, (_, i) => values.slice(i * columns, (i + 1) * columns));
    }
    at = start + size;
  }
  throw new Error(`the file has no array ${name}`);
}
