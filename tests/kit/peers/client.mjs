// The suite of exchanges with Node's fetch (undici). Takes a base URL, prints what it got as JSON.
import { createHash } from "node:crypto";

const base = process.argv[2];
const form = new FormData();
form.append("file", new Blob([Buffer.alloc(20_000_000, "x")]), "a.bin");
const json = await fetch(base + "/json", {
  method: "POST", body: JSON.stringify({ name: "Zoë" }), headers: { "Content-Type": "application/json" },
});
const upload = await fetch(base + "/upload", { method: "POST", body: form });
const download = await fetch(base + "/download");
const range = await fetch(base + "/range", { headers: { Range: "bytes=2-5" } });
const redirect = await fetch(base + "/redirect", { redirect: "manual" });
const cookie = await fetch(base + "/cookie");
const gzip = await fetch(base + "/gzip");
const events = await fetch(base + "/events");
console.log(JSON.stringify({
  json: await json.json(),
  upload: [upload.status, await upload.json()],
  download: createHash("sha256").update(Buffer.from(await download.arrayBuffer())).digest("hex"),
  range: [range.status, await range.text(), range.headers.get("content-range")],
  redirect: [redirect.status, redirect.headers.get("location")],
  cookie: cookie.headers.getSetCookie(),
  gzip: await gzip.text(),
  events: await events.text(),
}));
