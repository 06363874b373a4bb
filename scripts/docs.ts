// Writes the documents that are made from the table of options, and the units of deploy/; a test compares them.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generatedDocuments } from '../tools/documents.ts';
import { PROJECT } from '../tools/process.ts';

for (const [file, content] of generatedDocuments()) writeFileSync(join(PROJECT, file), content);
