/** What is on the interfaces of this node's pods, for comparison with what the pools say. */
import type { NamespaceAddresses, NodeAddresses } from '../../api/agent-api.ts';
import type { AgentApiSources } from './sources.ts';

export async function addressesView({ nodeName, endpoints, namespaces }: AgentApiSources): Promise<NodeAddresses> {
  const pods = new Map(endpoints().map(({ netnsInode, pod }) => [netnsInode, pod]));
  const found = await namespaces(new Set(pods.keys()));
  return {
    node: nodeName,
    namespaces: found.map(({ path, inode, interfaces }): NamespaceAddresses => {
      const pod = pods.get(inode);
      return { netns: path, ...(pod && { pod }), interfaces };
    }),
  };
}
