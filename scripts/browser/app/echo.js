// The description of the echo service, made at run time from its descriptor set.
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import descriptors from 'descriptors.binpb';

export const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors))
  .getService('echo.v1.EchoService');
