// MessagePack, read strictly: strings must be UTF-8, nothing may follow, nothing may nest deeply.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const MAX_DEPTH = 16

export function decode (bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0

  function take (length) {
    if (at + length > bytes.length) throw new Error('cut short')
    at += length
    return at - length
  }

  const raw = length => bytes.subarray(take(length), at)
  const string = length => utf8.decode(raw(length))
  const size = width => width === 1 ? view.getUint8(take(1)) : width === 2 ? view.getUint16(take(2)) : view.getUint32(take(4))

  function big (value) {
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < -BigInt(Number.MAX_SAFE_INTEGER)) throw new Error('out of range')
    return Number(value)
  }

  function array (length, depth) {
    const found = []
    for (let index = 0; index < length; index++) found.push(value(depth))
    return found
  }

  function map (length, depth) {
    const found = new Map()
    for (let index = 0; index < length; index++) {
      const key = value(depth)
      if (typeof key !== 'string') throw new Error('a key that is no string')
      found.set(key, value(depth))
    }
    return found
  }

  function value (depth) {
    if (depth > MAX_DEPTH) throw new Error('too deep')
    const head = view.getUint8(take(1))
    if (head < 0x80) return head
    if (head < 0x90) return map(head & 0x0f, depth + 1)
    if (head < 0xa0) return array(head & 0x0f, depth + 1)
    if (head < 0xc0) return string(head & 0x1f)
    if (head >= 0xe0) return head - 256
    switch (head) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: return raw(size(1))
      case 0xc5: return raw(size(2))
      case 0xc6: return raw(size(4))
      case 0xca: return view.getFloat32(take(4))
      case 0xcb: return view.getFloat64(take(8))
      case 0xcc: return view.getUint8(take(1))
      case 0xcd: return view.getUint16(take(2))
      case 0xce: return view.getUint32(take(4))
      case 0xcf: return big(view.getBigUint64(take(8)))
      case 0xd0: return view.getInt8(take(1))
      case 0xd1: return view.getInt16(take(2))
      case 0xd2: return view.getInt32(take(4))
      case 0xd3: return big(view.getBigInt64(take(8)))
      case 0xd9: return string(size(1))
      case 0xda: return string(size(2))
      case 0xdb: return string(size(4))
      case 0xdc: return array(size(2), depth + 1)
      case 0xdd: return array(size(4), depth + 1)
      case 0xde: return map(size(2), depth + 1)
      case 0xdf: return map(size(4), depth + 1)
      default: throw new Error('a type that the protocol does not use')
    }
  }

  const found = value(0)
  if (at !== bytes.length) throw new Error('bytes after the end')
  return found
}
