// Requests to the server the page came from. Addresses are relative: the page may lie under any path.

const TIMEOUT_MS = 20_000;

/** The server understood, and said no. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
  /** Whether the link is not, or no longer, worth anything. */
  get out() {
    return this.status === 401 || this.status === 403;
  }
}

/** Nobody answered, or not now: to be tried again. */
export class Unreachable extends Error {}

let shown = {};

/** Who this page is about. The server refuses what it sends once somebody else has signed in. */
export function identify(person) {
  shown = { "x-seral-person": encodeURIComponent(person) };
}

const request = (path, options) => send(`api/${path}`, options);

async function send(address, { headers, ...options }) {
  let response;
  options.headers = { ...shown, ...headers };
  try {
    response = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
  } catch (error) {
    throw new Unreachable(String(error));
  }
  if (response.ok) return response;
  if (response.status >= 500 || response.status === 429) throw new Unreachable(`status ${response.status}`);
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.error ?? `status ${response.status}`);
}

export async function get(path) {
  return (await request(path, {})).json();
}

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json", "x-seral": "1" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** For the log of who heard what. Nobody waits for it, and it is not sent again. */
export function logPlayed(utterance_id) {
  post("played", { utterance_id }).catch(() => {});
}

/** On the page of a personal link: become its owner. The address to go on from. */
export async function changePerson() {
  return (await (await send(location.href, { method: "POST", headers: { "x-seral": "1" } })).json()).to;
}

/** End the session, here and on the server. */
export async function signOut() {
  await post("sign-out");
  location.reload();
}

export async function bytes(path) {
  const response = await request(path, {});
  try {
    return await response.arrayBuffer();
  } catch (error) {
    throw new Unreachable(String(error));
  }
}

/** 128 random bits; crypto.randomUUID is missing where the page is reached by http from another machine. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
