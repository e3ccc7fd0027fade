// A vendor on Node's own HTTP server: the same small API as asgi.py and nginx.conf. Prints its port.
import { createServer } from "node:http";
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

const FILE = "0123456789";
const json = (response, value, headers = {}) =>
  response.writeHead(200, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));

createServer(async (request, response) => {
  const hash = createHash("sha256");
  let size = 0, text = "";
  for await (const piece of request) { size += piece.length; hash.update(piece); if (size < 1000) text += piece; }
  const auth = request.headers.authorization;
  switch (request.url.split("?")[0]) {
    case "/json": return json(response, { got: JSON.parse(text), auth });
    case "/upload": return json(response, { whole: size > 20_000_000 });
    case "/download": response.writeHead(200, { "Content-Type": "application/octet-stream" });
      for (let index = 0; index < 80; index++) if (!response.write(Buffer.alloc(65536, index)))
        await new Promise((done) => response.once("drain", done));
      return response.end();
    case "/range": {
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range);
      return response.writeHead(206, { "Content-Range": `bytes ${from}-${to}/10`, ETag: '"x"' })
        .end(FILE.slice(+from, +to + 1));
    }
    case "/redirect": return response.writeHead(302, { Location: "/elsewhere?x=1" }).end();
    case "/cookie": return response.writeHead(200, [["Set-Cookie", "a=1; Path=/"], ["Set-Cookie", "b=2"]].flat()).end();
    case "/gzip": return response.writeHead(200, { "Content-Encoding": "gzip" }).end(gzipSync("hello ".repeat(100)));
    case "/events": response.writeHead(200, { "Content-Type": "text/event-stream" });
      for (let index = 0; index < 3; index++) {
        response.write(`data: ${index}\n\n`);
        await new Promise((done) => setTimeout(done, 10));
      }
      return response.end();
    default: return response.writeHead(404).end();
  }
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
