// What credentials of AWS are, where they can come from, and the check that each of them passes.

import { OcicryptError } from '../../base/errors.ts';

/** An access key, as requests are signed with it. */
export type AwsIdentity = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
};

/** A role, as a profile or variables name it; `named` says which, for errors, and `region` where STS is asked. */
export type AwsRole = {
  readonly role: string;
  readonly session: string | undefined;
  readonly named: string;
  readonly region?: string | undefined;
};

/** A session of IAM Identity Center as a profile names it. */
export type AwsSso = {
  readonly profile: string;
  /** The name of its `sso-session`; undefined in profiles of the older form. */
  readonly session: string | undefined;
  readonly startUrl: string;
  readonly region: string;
  readonly account: string;
  readonly role: string;
};

/** Where credentials come from. All of them throw `unauthenticated`, `configuration`, `unavailable`, `deadline-exceeded`. */
export interface AwsSources {
  /** Variables; `named` says who asks for them. */
  environment(named: string): AwsIdentity;
  assumeRole(
    role: AwsRole & { readonly externalId: string | undefined; readonly seconds: string },
    source: AwsIdentity,
    signal: AbortSignal,
  ): Promise<AwsIdentity>;
  webIdentity(role: AwsRole & { readonly tokenFile: string }, signal: AbortSignal): Promise<AwsIdentity>;
  /** A program of the operator's, named in errors by `name`. */
  process(name: string, command: string, signal: AbortSignal): Promise<AwsIdentity>;
  sso(sso: AwsSso, signal: AbortSignal): Promise<AwsIdentity>;
  /** The session that `aws login` has opened for a profile. */
  login(profile: string, signal: AbortSignal): Promise<AwsIdentity>;
  container(signal: AbortSignal): Promise<AwsIdentity>;
  /** The role of the instance; `isExpected` if the configuration says that this is one. */
  instance(isExpected: boolean, signal: AbortSignal): Promise<AwsIdentity>;
}

/** Members as some source has them. */
export type AwsIdentityText = {
  readonly accessKeyId: string | undefined;
  readonly secretAccessKey: string | undefined;
  readonly sessionToken?: string | undefined;
  readonly expiration?: string | undefined;
};

/** All of it goes into headers or what is signed. */
const TEXT = /^[!-~]{1,16384}$/;

/** @throws OcicryptError `unauthenticated` for what are no credentials, or have ended */
export function checkIdentity(source: string, text: AwsIdentityText): AwsIdentity {
  const { accessKeyId, secretAccessKey, sessionToken, expiration } = text;
  const texts = [accessKeyId, secretAccessKey, ...(sessionToken === undefined ? [] : [sessionToken])];
  const end = expiration === undefined ? undefined : new Date(expiration);
  if (accessKeyId === undefined || secretAccessKey === undefined || texts.some((one) => !TEXT.test(one ?? ''))) {
    throw noIdentity(source, 'gives no AWS credentials');
  }
  if (end !== undefined && Number.isNaN(end.getTime()))
    throw noIdentity(source, 'gives AWS credentials with no valid end');
  if (end !== undefined && end.getTime() <= Date.now()) {
    throw new OcicryptError('unauthenticated', `${source} gives AWS credentials that have expired`, {
      hint: 'renew them there; a clock that is off has the same effect',
    });
  }
  return {
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    ...(end === undefined ? {} : { expiration: end }),
  };
}

function noIdentity(source: string, fault: string): OcicryptError {
  return new OcicryptError('unauthenticated', `${source} ${fault}`, {
    hint: 'compare with: aws configure export-credentials',
  });
}
