// Speaks CRI to a runtime: it pulls an image, as kubelet does.
// https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
import { encodeBytesField } from '../../src/base/grpc.ts';
import { callOnce } from '../../src/client/grpc-client.ts';

const PATIENCE = 60_000;

/** @throws OcicryptError with what the runtime said; `unavailable` where none listens */
export async function pullImageByCri(socket: string, image: string): Promise<void> {
  await callOnce({ kind: 'unix', path: socket }, undefined, {
    method: '/runtime.v1.ImageService/PullImage',
    // An ImageSpec in a PullImageRequest.
    message: encodeBytesField(encodeBytesField(new TextEncoder().encode(image))),
    timeout: PATIENCE,
    maximumReply: 65_536,
    signal: AbortSignal.timeout(PATIENCE),
  });
}
