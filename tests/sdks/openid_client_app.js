// openid-client with an issuer that is set by hand: it never looks for a discovery document.
const {Issuer} = require("openid-client");

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

async function main() {
  const issuer = new Issuer({issuer: process.env.BASE, token_endpoint: process.env.TOKEN_URL});
  const client = new issuer.Client({client_id: "any", client_secret: process.env.KEY});
  let token = await client.grant({grant_type: "client_credentials", scope: "document_read document_write"});
  for (let i = 0; i < 2; i++) {
    if (token.expired()) token = await client.grant({grant_type: "client_credentials"});
    const body = JSON.stringify({title: "Contract", externalId: "1"});
    const options = {method: "POST", body, headers: {"Content-Type": "application/json"}};
    const made = await client.requestResource(`${process.env.BASE}/signature/documents`, token, options);
    const id = JSON.parse(made.body).documentId;
    const read = await client.requestResource(`${process.env.BASE}/signature/documents/${id}`, token);
    console.log(JSON.stringify({read: JSON.parse(read.body).documentId === id}));
    await pause(Number(process.env.PAUSE || 0));
  }
}
main();
