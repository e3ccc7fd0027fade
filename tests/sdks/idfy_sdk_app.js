// @idfy/sdk, IDfy's own SDK for Node.
const {IdfyClient, IdfyConfiguration} = require("@idfy/sdk");

IdfyConfiguration.baseUrl = process.env.BASE;
IdfyConfiguration.oauthBaseUrl = process.env.BASE;
const client = new IdfyClient("any", process.env.KEY, ["document_read", "document_write"]);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

async function main() {
  for (let i = 0; i < 2; i++) {
    const made = await client.signature.createDocument({title: "Contract", externalId: "1"});
    const read = await client.signature.getDocument(made.documentId);
    console.log(JSON.stringify({read: read.documentId === made.documentId}));
    await pause(Number(process.env.PAUSE || 0));
  }
}
main();
