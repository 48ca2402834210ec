// A node that learns nothing: hears, fetches and verifies what others share, and shares rollouts of its own
// about a task of rows, whose truths it knows. Settings come as JSON in argv[2]; what happens goes to stdout,
// one JSON object a line. Ends when stdin does.

import fs from 'node:fs'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { lpStream } from '@libp2p/utils'
import { encode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { decode } from './msgpack.mjs'
import * as sapo from './protocol.mjs'

const settings = JSON.parse(process.argv[2]) // swarm_id, dial, seed, lifetime_s, task, rows, every_ms
const topic = `sapo/${settings.swarm_id}/announce/1`
const FETCH = `/sapo/${settings.swarm_id}/fetch/1`
const MAX_REPLY = 4 * 2 ** 20
const seed = Buffer.from(settings.seed, 'hex')
const identity = new sapo.Identity(seed)
const receiver = new sapo.Receiver(identity.nodeId, settings.swarm_id, settings.lifetime_s, () => Date.now() / 1000)
const rows = fs.readFileSync(settings.rows, 'utf8').trim().split('\n').map(line => JSON.parse(line))
const shared = new Map() // hash -> record
const incarnation = Date.now()
let sequence = incarnation

const tell = (event, facts) => process.stdout.write(JSON.stringify({ event, ...facts }) + '\n')

const node = await createLibp2p({
  privateKey: await generateKeyPairFromSeed('Ed25519', seed),
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) }
})

async function fetchRollouts (peer, hashes) {
  const messages = lpStream(await node.dialProtocol(peer, FETCH), { maxDataLength: MAX_REPLY })
  await messages.write(encode(hashes))
  const records = decode((await messages.read()).subarray())
  await messages.unwrap().close()
  return records.map(record => Buffer.from(record))
}

async function serveFetch (stream) {
  const messages = lpStream(stream, { maxDataLength: 608 })
  const hashes = decode((await messages.read()).subarray())
  const found = hashes.map(hash => shared.get(Buffer.from(hash).toString('hex'))).filter(Boolean)
  await messages.write(encode(found))
  await stream.close()
  tell('served', { number: found.length })
}

async function hear (peer, record) {
  const announcement = receiver.hear(record)
  tell('heard', { author: announcement.author, entries: announcement.entries.length })
  for (const entry of announcement.entries) {
    const [rollout] = await fetchRollouts(peer, [entry.hash])
    if (rollout === undefined || !sapo.sha256(rollout).equals(entry.hash)) throw new sapo.Refused('mismatch', 'hash')
    const { author, question, answers } = sapo.openRollout(rollout)
    if (author !== announcement.author || answers.length !== entry.correct.length) throw new sapo.Refused('mismatch')
    tell('fetched', { author, question, answers: answers.map(one => one.text), correct: entry.correct })
  }
}

function rolloutOf (index) {
  const truth = rows[index].answer
  const wrong = String(Number(truth) + 1)
  const answers = [truth, wrong, truth, wrong].map(text => ({ text, finished: true, num_tokens: 3, mean_logp: -0.5 }))
  return {
    swarm_id: settings.swarm_id, author: identity.nodeId, sequence, question: { task: settings.task, index },
    answers, model: 'none (javascript)', policy_round: 0, created: Date.now() / 1000
  }
}

async function share (index) {
  sequence = Math.max(sequence + 1, Date.now())
  const rollout = rolloutOf(index)
  const record = sapo.seal(sapo.ROLLOUT, rollout, identity)
  const hash = sapo.sha256(record)
  shared.set(hash.toString('hex'), record)
  const entry = { hash, question: rollout.question, num_bytes: record.length, correct: [true, false, true, false], policy_round: 0 }
  const { swarm_id, author, created } = rollout
  const announcement = { swarm_id, author, sequence, incarnation, created, entries: [entry] }
  const sent = await node.services.pubsub.publish(topic, sapo.seal(sapo.ANNOUNCEMENT, announcement, identity))
  tell('shared', { index, peers: sent.recipients.length })
}

const report = error => tell('failed', { reason: error.reason ?? 'error', detail: String(error.message) })

await node.handle(FETCH, stream => serveFetch(stream).catch(report))
node.services.pubsub.addEventListener('gossipsub:message', ({ detail: { propagationSource, msg } }) => {
  if (msg.topic === topic) hear(propagationSource, Buffer.from(msg.data)).catch(report)
})
node.services.pubsub.subscribe(topic)
await node.dial(multiaddr(settings.dial))
tell('started', { node_id: identity.nodeId })

const indices = rows.map((_, index) => index).filter(index => !sapo.isHeldOut(rows[index].question))
const timer = setInterval(() => {
  const index = indices.shift()
  if (index !== undefined && node.services.pubsub.getSubscribers(topic).length > 0) share(index).catch(report)
}, settings.every_ms)

process.stdin.resume()
process.stdin.on('end', async () => {
  clearInterval(timer)
  await node.stop()
  process.exit(0)
})
