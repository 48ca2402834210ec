// Records, identities and rules as docs/PROTOCOL.md describes them. Throws Refused with the reason's name.

import crypto from 'node:crypto'
import { encode } from '@msgpack/msgpack'
import { base58btc } from 'multiformats/bases/base58'
import { decode } from './msgpack.mjs'

export const ROLLOUT = Buffer.from('sapo-rollout-1\n\0')
export const ANNOUNCEMENT = Buffer.from('sapo-announce-1\n')
const MAX_BYTES = new Map([[ROLLOUT, 2 ** 20], [ANNOUNCEMENT, 8192]])
const SEAL = 80
const ID_PREFIX = Buffer.from('002408011220', 'hex')
const DER_PUBLIC = Buffer.from('302a300506032b6570032100', 'hex')
const DER_PRIVATE = Buffer.from('302e020100300506032b657004220420', 'hex')

export class Refused extends Error {
  constructor (reason, detail = '') {
    super(`${reason} ${detail}`)
    this.reason = reason
  }
}

export const sha256 = bytes => crypto.createHash('sha256').update(bytes).digest()

// ---- identity

export class Identity {
  constructor (seed) {
    this.key = crypto.createPrivateKey({ key: Buffer.concat([DER_PRIVATE, seed]), format: 'der', type: 'pkcs8' })
    this.publicKey = crypto.createPublicKey(this.key).export({ format: 'der', type: 'spki' }).subarray(-32)
    this.nodeId = base58btc.baseEncode(Buffer.concat([ID_PREFIX, this.publicKey]))
  }

  sign (message) {
    return crypto.sign(null, message, this.key)
  }
}

export function isSignedBy (nodeId, message, signature) {
  let raw
  try {
    raw = Buffer.from(base58btc.baseDecode(nodeId))
  } catch {
    return false
  }
  if (raw.length !== 38 || !raw.subarray(0, 6).equals(ID_PREFIX)) return false
  const key = crypto.createPublicKey({ key: Buffer.concat([DER_PUBLIC, raw.subarray(6)]), format: 'der', type: 'spki' })
  return crypto.verify(null, message, key, signature)
}

// ---- records

export function seal (magic, message, identity) {
  const payload = Buffer.from(encode(message))
  return Buffer.concat([magic, identity.sign(Buffer.concat([magic, payload])), payload])
}

function open (record, magic, read, prefix) {
  if (record.length > MAX_BYTES.get(magic)) throw new Refused(prefix + 'too_large')
  if (record.length <= SEAL || !record.subarray(0, 16).equals(magic)) throw new Refused(prefix + 'malformed', 'another kind')
  const payload = record.subarray(SEAL)
  let message
  try {
    message = read(decode(payload))
  } catch (error) {
    throw new Refused(prefix + 'malformed', error.message)
  }
  if (!isSignedBy(message.author, Buffer.concat([magic, payload]), record.subarray(16, SEAL))) throw new Refused(prefix + 'bad_signature')
  return message
}

export const openRollout = record => open(record, ROLLOUT, readRollout, 'rollout_')
export const openAnnouncement = record => open(record, ANNOUNCEMENT, readAnnouncement, '')

function need (holds, what) {
  if (!holds) throw new Error(what)
}

function field (map, name, otherwise) {
  need(map instanceof Map, 'no map')
  const value = map.has(name) ? map.get(name) : otherwise
  need(value !== undefined, `without ${name}`)
  return value
}

function integer (map, name, low, high, otherwise) {
  const value = field(map, name, otherwise)
  need(Number.isInteger(value) && value >= low && value <= high, name)
  return value
}

function number (map, name, low, high) {
  const value = field(map, name)
  need(typeof value === 'number' && value >= low && value < high, name)
  return value
}

function text (map, name, low, high) {
  const value = field(map, name)
  need(typeof value === 'string', name)
  const length = [...value].length
  need(length >= low && length <= high, name)
  return value
}

function bool (value) {
  need(typeof value === 'boolean', 'no boolean')
  return value
}

function array (map, name, low, high) {
  const value = field(map, name)
  need(Array.isArray(value) && value.length >= low && value.length <= high, name)
  return value
}

function swarmId (map) {
  const value = text(map, 'swarm_id', 64, 64)
  need(/^[0-9a-f]{64}$/.test(value), 'swarm_id')
  return value
}

function question (map) {
  const value = field(map, 'question')
  return { task: text(value, 'task', 1, 64), index: integer(value, 'index', 0, 2 ** 53 - 1) }
}

function head (map) {
  return {
    swarm_id: swarmId(map),
    author: text(map, 'author', 40, 64),
    sequence: integer(map, 'sequence', 1, 2 ** 53 - 1),
    created: number(map, 'created', 0, 2 ** 40)
  }
}

function readRollout (map) {
  return {
    ...head(map),
    question: question(map),
    answers: array(map, 'answers', 2, 64).map(readAnswer),
    model: text(map, 'model', 0, 200),
    policy_round: integer(map, 'policy_round', 0, 2 ** 40 - 1)
  }
}

function readAnswer (map) {
  const logp = field(map, 'mean_logp', null)
  need(logp === null || (typeof logp === 'number' && logp > -1e6 && logp <= 0), 'mean_logp')
  return {
    text: text(map, 'text', 0, Infinity),
    finished: bool(field(map, 'finished')),
    num_tokens: integer(map, 'num_tokens', 0, 2 ** 31 - 1, 0),
    mean_logp: logp
  }
}

function readAnnouncement (map) {
  return {
    ...head(map),
    incarnation: integer(map, 'incarnation', 1, 2 ** 53 - 1),
    entries: array(map, 'entries', 1, 24).map(readEntry)
  }
}

function readEntry (map) {
  const hash = field(map, 'hash')
  need(hash instanceof Uint8Array && hash.length === 32, 'hash')
  return {
    hash: Buffer.from(hash),
    question: question(map),
    num_bytes: integer(map, 'num_bytes', 1, 2 ** 20),
    correct: array(map, 'correct', 2, 64).map(bool),
    policy_round: integer(map, 'policy_round', 0, 2 ** 40 - 1)
  }
}

// ---- what a receiver of an announcement checks, up to what it has heard before

export class Receiver {
  constructor (nodeId, swarmId, lifetimeS, now) {
    Object.assign(this, { nodeId, swarmId, lifetimeS, now })
    this.heard = new Map()
  }

  hear (record) {
    const announcement = openAnnouncement(record)
    const { author, sequence, created } = announcement
    if (announcement.swarm_id !== this.swarmId) throw new Refused('wrong_swarm')
    if (author === this.nodeId) throw new Refused('own')
    const key = `${author} ${sequence}`
    const payload = record.subarray(SEAL).toString('hex')
    if (this.heard.get(key) === payload) throw new Refused('repeated')
    const now = this.now()
    if (Math.min(created + this.lifetimeS + 600, now + this.lifetimeS) <= now) throw new Refused('expired')
    if (created > now + 600) throw new Refused('from_the_future')
    if (this.heard.has(key)) throw new Refused('equivocation')
    this.heard.set(key, payload)
    return announcement
  }
}

export function shardOf (swarmId, author, created, numShards) {
  const hash = sha256(`sapo-shard-1 ${swarmId} ${Math.floor(created / 86400)} ${author}`)
  return Number(hash.readBigUInt64BE(0) % BigInt(numShards))
}

// ---- rules

const RULES = { max_answers: 32, lifetime_s: 3600, epoch_s: 3600, owner: '', shards: 1 }
const TASK = { params: {}, answer_format: 'last_line', system: '', examples: [], digest: '' }

export function swarmIdOf (rules) {
  const kept = without(rules, RULES)
  kept.tasks = rules.tasks.map(task => without(task, TASK))
  return sha256('sapo-rules-1\n' + canonical(kept)).toString('hex')
}

/** What a swarm's owner signs of its file. */
export function manifestBytes (about, bootstrap, swarmId, version) {
  const signed = { about: without(about, { description: '' }), bootstrap: without(bootstrap, { peers: [] }), swarm_id: swarmId, version }
  return Buffer.from('sapo-manifest-1\n' + canonical(signed))
}

function without (map, defaults) {
  return Object.fromEntries(Object.entries(map).filter(([key, value]) => !(key in defaults) || canonical(value) !== canonical(defaults[key])))
}

/** A float that TOML wrote as one, since JavaScript has only one kind of number. */
export class Float {
  constructor (value) {
    this.value = value
  }
}

export function canonical (value) {
  if (value instanceof Float) return canonicalFloat(value.value)
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value !== null && typeof value === 'object') {
    const keys = Object.keys(value).sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)))
    return `{${keys.map(key => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`
  }
  return JSON.stringify(value)
}

export function canonicalFloat (value) {
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0'
  const size = Math.abs(value)
  if (size >= 1e16 || size < 1e-5) return value.toExponential().replace('e+', 'e')
  const plain = String(value)
  return plain.includes('.') ? plain : plain + '.0'
}

// ---- held out

const SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+'
const SPACES = new RegExp(SPACE, 'gu')
// Full case folding is not in JavaScript: this holds for ASCII and for ß.
export const normalise = text => text.replace(SPACES, ' ').replace(/^ | $/g, '').toLowerCase().replaceAll('ß', 'ss')
export const isHeldOut = text => sha256(normalise(text))[0] >= 0xf0
