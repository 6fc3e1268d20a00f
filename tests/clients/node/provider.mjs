// A real OpenID Connect provider on loopback, for the sign-in tests. `oidc-provider` does what a
// provider does; the paths below /test let a test say who its people are and change its keys.
//
// usage: node provider.mjs REDIRECT_URI...    prints one line: {"issuer": "http://..."}
import { createServer } from "node:http";
import { createPublicKey } from "node:crypto";
import { exportJWK, generateKeyPair, importJWK, SignJWT } from "jose";
import Provider from "oidc-provider";

// It warns of what a test has no use for, on the way that errors take.
console.info = console.warn = () => {};

const people = new Map();
let issuer, provider, handle, key, keysAsked, keysAway;

async function rotate({ bare } = {}) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  const kid = `key-${Math.random().toString(36).slice(2)}`;
  key = { ...(await exportJWK(privateKey)), kid, alg: "RS256", use: "sig" };
  if (bare) delete key.alg; // good for every RSA algorithm then
  provider = new Provider(issuer, {
    jwks: { keys: [key] },
    clients: [{
      client_id: "hearth",
      client_secret: "a-secret-of-thirty-two-characters",
      redirect_uris: process.argv.slice(2),
      grant_types: ["authorization_code"],
      response_types: ["code"],
    }],
    claims: {
      openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], groups: ["groups"],
    },
    scopes: ["openid", "email", "profile", "groups"],
    conformIdTokenClaims: false,
    cookies: { keys: ["only for tests"] },
    pkce: { required: () => true },
    findAccount: (_, id) => people.has(id)
      ? { accountId: id, claims: () => ({ sub: id, ...people.get(id) }) }
      : undefined,
    // Nobody is asked whether they agree.
    async loadExistingGrant(context) {
      const grant = new context.oidc.provider.Grant({
        accountId: context.oidc.session.accountId, clientId: context.oidc.client.clientId,
      });
      grant.addOIDCScope("openid email profile groups");
      await grant.save();
      return grant;
    },
  });
  handle = provider.callback();
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString() || "{}");
}

async function control(path, request) {
  const given = await body(request);
  switch (path) {
    case "/test/person": // {sub, ...claims}
      people.set(given.sub, given);
      return {};
    case "/test/rotate": // {bare}
      await rotate(given);
      return { kid: key.kid };
    case "/test/keys": // {away}; answers how often the keys were asked for
      keysAway = given.away ?? keysAway;
      return { asked: keysAsked };
    case "/test/sign": { // {header, claims}
      const header = { alg: "RS256", kid: key.kid, ...given.header };
      const signs = await importJWK(key, header.alg);
      return { token: await new SignJWT(given.claims).setProtectedHeader(header).sign(signs) };
    }
    case "/test/public": {
      const { kty, n, e } = key;
      const pem = createPublicKey({ key: { kty, n, e }, format: "jwk" });
      return { kid: key.kid, pem: pem.export({ type: "spki", format: "pem" }), n };
    }
  }
}

keysAsked = 0;
keysAway = false;
const server = createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  if (path.startsWith("/test/")) {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(await control(path, request)));
  } else if (path === "/jwks" && keysAway) {
    response.writeHead(503).end();
  } else {
    keysAsked += path === "/jwks" ? 1 : 0;
    handle(request, response);
  }
});
server.listen(0, "127.0.0.1", async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  await rotate();
  console.log(JSON.stringify({ issuer }));
});
// The test's end closes the pipe.
process.stdin.resume().on("end", () => process.exit(0));
