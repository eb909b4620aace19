import { BlockList, isIP } from 'node:net'
import { isLoopback } from '../base/address.ts'

/** Ranges that are inside of somebody's network (RFC 1918, 6598, 4193, 2544) or reach there by translation (RFC 6052, 8215, 3056). */
const inside = new BlockList()
for (const [network, prefix] of [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['100.64.0.0', 10],
  ['198.18.0.0', 15],
] as const)
  inside.addSubnet(network, prefix, 'ipv4')
for (const [network, prefix] of [
  ['fc00::', 7],
  ['fec0::', 10],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['2002::', 16],
] as const)
  inside.addSubnet(network, prefix, 'ipv6')

/** Where no issuer is, not even inside: this host or network, link-local with the metadata services of clouds, multicast, reserved. */
const never = new BlockList()
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['192.0.0.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const)
  never.addSubnet(network, prefix, 'ipv4')
for (const [network, prefix] of [
  ['fe80::', 10],
  ['ff00::', 8],
] as const)
  never.addSubnet(network, prefix, 'ipv6')
never.addAddress('::', 'ipv6')
// The metadata service of AWS by IPv6, which lies in a private range.
never.addAddress('fd00:ec2::254', 'ipv6')

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/**
 * Whether a connection to this address may be made for a URL with this host. Looked at after the name was resolved: a name that anyone may choose can point anywhere
 * (RFC 8725bis on fetching keys).
 */
export function mayConnect(address: string, host: string, allowPrivate: boolean): boolean {
  if (isIP(address) === 0 || isIn(never, address)) return false
  if (isIn(loopback, address)) return isLoopback(host)
  return allowPrivate || !isIn(inside, address)
}

/** An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is in the ranges of IPv4: BlockList sees to it. */
const isIn = (list: BlockList, address: string): boolean => isIP(address) !== 0 && list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

export const withoutBrackets = (host: string): string => host.replace(/^\[(.*)\]$/, '$1')
