// PostgreSQL's own parser as a filter: a JSON string a line comes in, SQL; a JSON object a line goes out: the statements that it holds, each with
// its place in characters, its command tag and what it is about, or the error.
import { createInterface } from 'node:readline';
import { loadModule, parseSync, scanSync } from 'libpg-query';

const objects = {
  OBJECT_ACCESS_METHOD: 'ACCESS METHOD', OBJECT_AGGREGATE: 'AGGREGATE', OBJECT_ATTRIBUTE: 'TYPE', OBJECT_CAST: 'CAST', OBJECT_COLLATION: 'COLLATION', OBJECT_COLUMN: 'TABLE',
  OBJECT_CONVERSION: 'CONVERSION', OBJECT_DATABASE: 'DATABASE', OBJECT_DOMAIN: 'DOMAIN', OBJECT_DOMCONSTRAINT: 'DOMAIN', OBJECT_EVENT_TRIGGER: 'EVENT TRIGGER',
  OBJECT_EXTENSION: 'EXTENSION', OBJECT_FDW: 'FOREIGN DATA WRAPPER', OBJECT_FOREIGN_SERVER: 'SERVER', OBJECT_FOREIGN_TABLE: 'FOREIGN TABLE', OBJECT_FUNCTION: 'FUNCTION',
  OBJECT_INDEX: 'INDEX', OBJECT_LANGUAGE: 'LANGUAGE', OBJECT_LARGEOBJECT: 'LARGE OBJECT', OBJECT_MATVIEW: 'MATERIALIZED VIEW', OBJECT_OPCLASS: 'OPERATOR CLASS',
  OBJECT_OPERATOR: 'OPERATOR', OBJECT_OPFAMILY: 'OPERATOR FAMILY', OBJECT_POLICY: 'POLICY', OBJECT_PROCEDURE: 'PROCEDURE', OBJECT_PUBLICATION: 'PUBLICATION',
  OBJECT_ROLE: 'ROLE', OBJECT_ROUTINE: 'ROUTINE', OBJECT_RULE: 'RULE', OBJECT_SCHEMA: 'SCHEMA', OBJECT_SEQUENCE: 'SEQUENCE', OBJECT_STATISTIC_EXT: 'STATISTICS',
  OBJECT_SUBSCRIPTION: 'SUBSCRIPTION', OBJECT_TABCONSTRAINT: 'TABLE', OBJECT_TABLE: 'TABLE', OBJECT_TABLESPACE: 'TABLESPACE', OBJECT_TRANSFORM: 'TRANSFORM',
  OBJECT_TRIGGER: 'TRIGGER', OBJECT_TSCONFIGURATION: 'TEXT SEARCH CONFIGURATION', OBJECT_TSDICTIONARY: 'TEXT SEARCH DICTIONARY', OBJECT_TSPARSER: 'TEXT SEARCH PARSER',
  OBJECT_TSTEMPLATE: 'TEXT SEARCH TEMPLATE', OBJECT_TYPE: 'TYPE', OBJECT_USER_MAPPING: 'USER MAPPING', OBJECT_VIEW: 'VIEW',
};
// What is altered is these objects' table.
const ofTable = new Set(['OBJECT_TRIGGER', 'OBJECT_RULE', 'OBJECT_POLICY', 'OBJECT_COLUMN', 'OBJECT_TABCONSTRAINT', 'OBJECT_DOMCONSTRAINT']);
const transactions = {
  TRANS_STMT_BEGIN: 'BEGIN', TRANS_STMT_START: 'START TRANSACTION', TRANS_STMT_COMMIT: 'COMMIT', TRANS_STMT_ROLLBACK: 'ROLLBACK', TRANS_STMT_SAVEPOINT: 'SAVEPOINT',
  TRANS_STMT_RELEASE: 'RELEASE', TRANS_STMT_ROLLBACK_TO: 'ROLLBACK', TRANS_STMT_PREPARE: 'PREPARE TRANSACTION', TRANS_STMT_COMMIT_PREPARED: 'COMMIT PREPARED',
  TRANS_STMT_ROLLBACK_PREPARED: 'ROLLBACK PREPARED',
};
const role = r => ({ ROLESPEC_CURRENT_USER: 'current_user', ROLESPEC_CURRENT_ROLE: 'current_role', ROLESPEC_SESSION_USER: 'session_user', ROLESPEC_PUBLIC: 'public' })[r.roletype] ?? r.rolename;
const relation = r => (r.schemaname ? r.schemaname + '.' : '') + r.relname;
const names = list => list.map(n => n.String.sval).join('.');

// An object as DROP, COMMENT and the like hold it.
function object(node, kind) {
  if (node.String) return node.String.sval;
  if (node.TypeName) return names(node.TypeName.names);
  if (node.ObjectWithArgs) return names(node.ObjectWithArgs.objname);
  if (node.RoleSpec) return role(node.RoleSpec);
  if (node.RangeVar) return relation(node.RangeVar);
  if (node.Integer) return String(node.Integer.ival ?? 0);
  if (node.Float) return node.Float.fval;
  const items = node.List.items;
  if (kind === 'OBJECT_OPCLASS' || kind === 'OBJECT_OPFAMILY') return names(items.slice(1));
  if (kind === 'OBJECT_CAST' || kind === 'OBJECT_TRANSFORM' || kind === 'OBJECT_DOMCONSTRAINT') return object(items[0], kind);
  // Of three parts the first is the database.
  return names((ofTable.has(kind) ? items.slice(0, -1) : items).slice(-2));
}

const one = x => x === undefined ? [] : [x];
const rel = (tag, r) => [tag, one(r && relation(r))];
const named = (tag, name) => [tag, one(name)];

function describe(node) {
  const [type, s] = Object.entries(node)[0];
  switch (type) {
    case 'CreateStmt': return rel('CREATE TABLE', s.relation);
    case 'CreateForeignTableStmt': return rel('CREATE FOREIGN TABLE', s.base.relation);
    case 'CreateTableAsStmt':
      return rel(s.is_select_into ? 'SELECT INTO' : s.objtype === 'OBJECT_MATVIEW' ? 'CREATE MATERIALIZED VIEW' : 'CREATE TABLE AS', s.into.rel);
    case 'SelectStmt': { let l = s; while (l.larg) l = l.larg; return l.intoClause ? rel('SELECT INTO', l.intoClause.rel) : ['SELECT', []]; }
    case 'InsertStmt': return rel('INSERT', s.relation);
    case 'UpdateStmt': return rel('UPDATE', s.relation);
    case 'DeleteStmt': return rel('DELETE', s.relation);
    case 'MergeStmt': return rel('MERGE', s.relation);
    case 'AlterTableStmt': return rel('ALTER ' + objects[s.objtype], s.relation);
    case 'AlterTableMoveAllStmt': return ['ALTER ' + objects[s.objtype], []];
    case 'IndexStmt': return rel('CREATE INDEX', s.relation);
    case 'ViewStmt': return rel('CREATE VIEW', s.view);
    case 'RefreshMatViewStmt': return rel('REFRESH MATERIALIZED VIEW', s.relation);
    case 'CreateSeqStmt': return rel('CREATE SEQUENCE', s.sequence);
    case 'AlterSeqStmt': return rel('ALTER SEQUENCE', s.sequence);
    case 'CreateEnumStmt': case 'CreateRangeStmt': return named('CREATE TYPE', names(s.typeName));
    case 'CompositeTypeStmt': return rel('CREATE TYPE', s.typevar);
    case 'AlterEnumStmt': case 'AlterTypeStmt': return named('ALTER TYPE', names(s.typeName));
    case 'CreateDomainStmt': return named('CREATE DOMAIN', names(s.domainname));
    case 'AlterDomainStmt': return named('ALTER DOMAIN', names(s.typeName));
    case 'DefineStmt': return named('CREATE ' + objects[s.kind], names(s.defnames));
    case 'CreateFunctionStmt': return named(s.is_procedure ? 'CREATE PROCEDURE' : 'CREATE FUNCTION', names(s.funcname));
    case 'AlterFunctionStmt': return named('ALTER ' + objects[s.objtype], names(s.func.objname));
    case 'CreateOpClassStmt': return named('CREATE OPERATOR CLASS', names(s.opclassname));
    case 'CreateOpFamilyStmt': return named('CREATE OPERATOR FAMILY', names(s.opfamilyname));
    case 'AlterOpFamilyStmt': return named('ALTER OPERATOR FAMILY', names(s.opfamilyname));
    case 'AlterOperatorStmt': return named('ALTER OPERATOR', names(s.opername.objname));
    case 'CreateTrigStmt': return rel('CREATE TRIGGER', s.relation);
    case 'CreateEventTrigStmt': return named('CREATE EVENT TRIGGER', s.trigname);
    case 'AlterEventTrigStmt': return named('ALTER EVENT TRIGGER', s.trigname);
    case 'RuleStmt': return rel('CREATE RULE', s.relation);
    case 'CreatePolicyStmt': return rel('CREATE POLICY', s.table);
    case 'AlterPolicyStmt': return rel('ALTER POLICY', s.table);
    case 'CreateExtensionStmt': return named('CREATE EXTENSION', s.extname);
    case 'AlterExtensionStmt': case 'AlterExtensionContentsStmt': return named('ALTER EXTENSION', s.extname);
    case 'CreateSchemaStmt': return named('CREATE SCHEMA', s.schemaname);
    case 'CreateRoleStmt': return named('CREATE ROLE', s.role);
    case 'AlterRoleStmt': case 'AlterRoleSetStmt': return named('ALTER ROLE', s.role && role(s.role));
    case 'DropRoleStmt': return ['DROP ROLE', s.roles.map(r => role(r.RoleSpec))];
    case 'CreatedbStmt': return named('CREATE DATABASE', s.dbname);
    case 'AlterDatabaseStmt': case 'AlterDatabaseSetStmt': case 'AlterDatabaseRefreshCollStmt': return named('ALTER DATABASE', s.dbname);
    case 'DropdbStmt': return named('DROP DATABASE', s.dbname);
    case 'CreateTableSpaceStmt': return named('CREATE TABLESPACE', s.tablespacename);
    case 'AlterTableSpaceOptionsStmt': return named('ALTER TABLESPACE', s.tablespacename);
    case 'DropTableSpaceStmt': return named('DROP TABLESPACE', s.tablespacename);
    case 'AlterCollationStmt': return named('ALTER COLLATION', names(s.collname));
    case 'CreateConversionStmt': return named('CREATE CONVERSION', names(s.conversion_name));
    case 'CreateCastStmt': return named('CREATE CAST', names(s.sourcetype.names));
    case 'CreateTransformStmt': return named('CREATE TRANSFORM', names(s.type_name.names));
    case 'CreatePLangStmt': return named('CREATE LANGUAGE', s.plname);
    case 'CreateAmStmt': return named('CREATE ACCESS METHOD', s.amname);
    case 'CreateFdwStmt': return named('CREATE FOREIGN DATA WRAPPER', s.fdwname);
    case 'AlterFdwStmt': return named('ALTER FOREIGN DATA WRAPPER', s.fdwname);
    case 'CreateForeignServerStmt': return named('CREATE SERVER', s.servername);
    case 'AlterForeignServerStmt': return named('ALTER SERVER', s.servername);
    case 'CreateUserMappingStmt': return named('CREATE USER MAPPING', role(s.user));
    case 'AlterUserMappingStmt': return named('ALTER USER MAPPING', role(s.user));
    case 'DropUserMappingStmt': return named('DROP USER MAPPING', role(s.user));
    case 'ImportForeignSchemaStmt': return named('IMPORT FOREIGN SCHEMA', s.local_schema);
    case 'CreatePublicationStmt': return named('CREATE PUBLICATION', s.pubname);
    case 'AlterPublicationStmt': return named('ALTER PUBLICATION', s.pubname);
    case 'CreateSubscriptionStmt': return named('CREATE SUBSCRIPTION', s.subname);
    case 'AlterSubscriptionStmt': return named('ALTER SUBSCRIPTION', s.subname);
    case 'DropSubscriptionStmt': return named('DROP SUBSCRIPTION', s.subname);
    case 'CreateStatsStmt': return ['CREATE STATISTICS', s.relations.map(r => r.RangeVar ? relation(r.RangeVar) : '?')];
    case 'AlterStatsStmt': return named('ALTER STATISTICS', names(s.defnames));
    case 'AlterTSDictionaryStmt': return named('ALTER TEXT SEARCH DICTIONARY', names(s.dictname));
    case 'AlterTSConfigurationStmt': return named('ALTER TEXT SEARCH CONFIGURATION', names(s.cfgname));
    case 'DropStmt': return ['DROP ' + objects[s.removeType], s.objects.map(o => object(o, s.removeType))];
    case 'DropOwnedStmt': return ['DROP OWNED', []];
    case 'ReassignOwnedStmt': return ['REASSIGN OWNED', []];
    case 'RenameStmt': {
      const kind = ['OBJECT_COLUMN', 'OBJECT_ATTRIBUTE', 'OBJECT_TABCONSTRAINT'].includes(s.renameType) ? s.relationType ?? s.renameType : s.renameType;
      const tag = 'ALTER ' + objects[kind === 'OBJECT_ATTRIBUTE' ? 'OBJECT_TYPE' : s.renameType === 'OBJECT_TABCONSTRAINT' ? 'OBJECT_TABLE' : kind];
      return s.relation ? rel(tag, s.relation) : named(tag, s.object ? object(s.object, s.renameType === 'OBJECT_DOMCONSTRAINT' ? 'OBJECT_TYPE' : s.renameType) : s.subname);
    }
    case 'AlterObjectSchemaStmt': return s.relation ? rel('ALTER ' + objects[s.objectType], s.relation) : named('ALTER ' + objects[s.objectType], object(s.object, s.objectType));
    case 'AlterOwnerStmt': return s.relation ? rel('ALTER ' + objects[s.objectType], s.relation) : named('ALTER ' + objects[s.objectType], object(s.object, s.objectType));
    case 'AlterObjectDependsStmt': return s.relation ? rel('ALTER ' + objects[s.objectType], s.relation) : named('ALTER ' + objects[s.objectType], object(s.object, s.objectType));
    case 'GrantStmt': return [s.is_grant ? 'GRANT' : 'REVOKE', s.targtype === 'ACL_TARGET_OBJECT' ? s.objects.map(o => o.AccessPriv?.priv_name ?? object(o, s.objtype)) : []];
    case 'GrantRoleStmt': return [s.is_grant ? 'GRANT ROLE' : 'REVOKE ROLE', s.granted_roles.map(r => r.AccessPriv.priv_name)];
    case 'AlterDefaultPrivilegesStmt': return ['ALTER DEFAULT PRIVILEGES', []];
    case 'CommentStmt': return named('COMMENT', object(s.object, s.objtype));
    case 'SecLabelStmt': return named('SECURITY LABEL', object(s.object, s.objtype));
    case 'TruncateStmt': return ['TRUNCATE TABLE', s.relations.map(r => relation(r.RangeVar))];
    case 'LockStmt': return ['LOCK TABLE', s.relations.map(r => relation(r.RangeVar))];
    case 'ReindexStmt': return rel('REINDEX', s.relation);
    case 'ClusterStmt': return rel('CLUSTER', s.relation);
    case 'VacuumStmt': return [s.is_vacuumcmd ? 'VACUUM' : 'ANALYZE', (s.rels ?? []).map(r => relation(r.VacuumRelation.relation))];
    case 'CopyStmt': return rel('COPY', s.relation);
    case 'TransactionStmt': return [transactions[s.kind], []];
    case 'VariableSetStmt': return [s.kind === 'VAR_RESET' || s.kind === 'VAR_RESET_ALL' ? 'RESET' : 'SET', []];
    case 'VariableShowStmt': return ['SHOW', []];
    case 'ConstraintsSetStmt': return ['SET CONSTRAINTS', []];
    case 'AlterSystemStmt': return ['ALTER SYSTEM', []];
    case 'DiscardStmt': return ['DISCARD ' + s.target.slice(8), []];
    case 'DoStmt': return ['DO', []];
    case 'CallStmt': return named('CALL', names(s.funccall.funcname));
    case 'ExplainStmt': return ['EXPLAIN', []];
    case 'PrepareStmt': return ['PREPARE', []];
    case 'ExecuteStmt': return ['EXECUTE', []];
    case 'DeallocateStmt': return [s.isall ? 'DEALLOCATE ALL' : 'DEALLOCATE', []];
    case 'DeclareCursorStmt': return ['DECLARE CURSOR', []];
    case 'ClosePortalStmt': return [s.portalname ? 'CLOSE CURSOR' : 'CLOSE CURSOR ALL', []];
    case 'FetchStmt': return [s.ismove ? 'MOVE' : 'FETCH', []];
    case 'ListenStmt': return ['LISTEN', []];
    case 'UnlistenStmt': return ['UNLISTEN', []];
    case 'NotifyStmt': return ['NOTIFY', []];
    case 'LoadStmt': return ['LOAD', []];
    case 'CheckPointStmt': return ['CHECKPOINT', []];
    default: return [type, []];
  }
}

function answer(sql) {
  try {
    const bytes = Buffer.from(sql);
    let at = 0;
    let chars = 0;
    // Places come in bytes of UTF-8.
    const toChars = byte => { chars += bytes.subarray(at, byte).toString().length; at = byte; return chars; };
    return { statements: (parseSync(sql).stmts ?? []).map(raw => {
      const start = raw.stmt_location ?? 0;
      const [tag, targets] = describe(raw.stmt);
      return { start: toChars(start), end: toChars(raw.stmt_len ? start + raw.stmt_len : bytes.length), tag, targets };
    }) };
  } catch (e) {
    return { error: String(e.message ?? e) };
  }
}

function tokens(sql) {
  try {
    return { tokens: scanSync(sql).tokens.map(t => t.text) };
  } catch (e) {
    return { error: String(e.message ?? e) };
  }
}

await loadModule();
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  process.stdout.write(JSON.stringify(request.scan ? tokens(request.sql) : answer(request.sql)) + '\n');
}
