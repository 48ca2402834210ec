// Checks this client against tests/vectors/vectors.json; prints how many checks held.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import { decode } from './msgpack.mjs'
import * as sapo from './protocol.mjs'

const vectors = JSON.parse(fs.readFileSync(new URL('../vectors/vectors.json', import.meta.url)))
const bytes = hex => Buffer.from(hex, 'hex')
let checks = 0
const same = (found, wanted, what) => { assert.deepEqual(found, wanted, what); checks++ }

for (const one of vectors.identity) {
  const identity = new sapo.Identity(bytes(one.seed))
  same(identity.publicKey.toString('hex'), one.public_key)
  same(identity.nodeId, one.node_id)
  same(identity.sign(bytes(one.message)).toString('hex'), one.signature)
}

for (const [number, written] of vectors.canonical_json.floats) same(sapo.canonicalFloat(Number(number)), written)
same(sapo.canonical({ b: 'é"\\\n\0/', a: [true, 1] }), vectors.canonical_json.text)
same(sapo.sha256('sapo-rules-1\n' + vectors.manifest.canonical_rules).toString('hex'), vectors.manifest.swarm_id)

for (const one of vectors.signed_manifests) {
  const signed = sapo.manifestBytes(one.about, one.bootstrap, one.swarm_id, one.version)
  same(sapo.sha256('sapo-rules-1\n' + one.canonical_rules).toString('hex'), one.swarm_id)
  same(signed.toString('hex'), one.signed_bytes)
  same(sapo.isSignedBy(one.owner, signed, bytes(one.signature)), true)
  same(sapo.isSignedBy(one.owner, sapo.manifestBytes(one.about, one.bootstrap, one.swarm_id, one.version + 2), bytes(one.signature)), false)
}

for (const one of vectors.held_out) {
  same(sapo.normalise(one.text), one.normalised)
  same(sapo.isHeldOut(one.text), one.held_out, one.text)
}

for (const one of vectors.shards) same(sapo.shardOf(vectors.manifest.swarm_id, vectors.identity[0].node_id, one.created, one.num_shards), one.shard)

const rollout = vectors.rollout
for (const name of ['record', 'with_unknown_field', 'reordered']) same(sapo.openRollout(bytes(rollout[name])), rollout.fields, name)
same(sapo.sha256(bytes(rollout.record)).toString('hex'), rollout.hash)

const announcement = vectors.announcement
const plain = message => JSON.parse(JSON.stringify({ ...message, entries: message.entries.map(one => ({ ...one, hash: one.hash.toString('hex') })) }))
for (const name of ['record', 'with_unknown_field']) same(plain(receiver().hear(bytes(announcement[name]))), announcement.fields, name)
const twice = receiver()
twice.hear(bytes(announcement.record))
assert.throws(() => twice.hear(bytes(announcement.record)), { reason: 'repeated' })
assert.throws(() => twice.hear(bytes(announcement.with_unknown_field)), { reason: 'equivocation' })
checks += 2

same(decode(bytes(vectors.fetch.request)).length, 2)
same(decode(bytes(vectors.fetch.reply)).map(record => sapo.sha256(record).toString('hex')), [rollout.hash])

const [first, second, got] = vectors.catalogue.exchanges.map(one => [decode(bytes(one.request)), decode(bytes(one.reply))])
same(sapo.sha256(bytes(announcement.record)).toString('hex').slice(0, 16), vectors.catalogue.id)
same(first[0], ['list', 0, []])
same(second[0], ['list', 1000, [2, 7]])
same(second[1][0], 300)
same(Buffer.from(second[1][1]).toString('hex'), '0001020304050607' + vectors.catalogue.id)
same(Buffer.from(got[0][1]).toString('hex'), '0001020304050607' + vectors.catalogue.id)
same(got[1].map(record => Buffer.from(record).toString('hex')), [announcement.record])

for (const one of vectors.refused.announcements) {
  assert.throws(() => receiver().hear(bytes(one.record)), { reason: one.refusal }, one.name)
  checks++
}
for (const one of vectors.refused.rollouts) {
  assert.throws(() => sapo.openRollout(bytes(one.record)), { reason: one.refusal }, one.name)
  checks++
}

function receiver () {
  return new sapo.Receiver(vectors.identity[1].node_id, vectors.manifest.swarm_id, 3600, () => vectors.now)
}

console.log(JSON.stringify({ checks }))
