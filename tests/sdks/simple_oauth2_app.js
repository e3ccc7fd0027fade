// simple-oauth2: resolves paths against the host, so the token path carries the route's prefix.
const {ClientCredentials} = require("simple-oauth2");

const url = new URL(process.env.TOKEN_URL);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

async function main() {
  const client = new ClientCredentials({
    client: {id: "any", secret: process.env.KEY},
    auth: {tokenHost: url.origin, tokenPath: url.pathname},
  });
  let token = await client.getToken({scope: "document_read document_write"});
  for (let i = 0; i < 2; i++) {
    if (token.expired()) token = await client.getToken({scope: "document_read document_write"});
    const headers = {Authorization: `Bearer ${token.token.access_token}`, "Content-Type": "application/json"};
    const body = JSON.stringify({title: "Contract", externalId: "1"});
    const made = await (await fetch(`${process.env.BASE}/signature/documents`, {method: "POST", headers, body})).json();
    const read = await (await fetch(`${process.env.BASE}/signature/documents/${made.documentId}`, {headers})).json();
    console.log(JSON.stringify({read: read.documentId === made.documentId}));
    await pause(Number(process.env.PAUSE || 0));
  }
}
main();
