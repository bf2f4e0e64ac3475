//! Relations of `pg_catalog` about what Ruslo does not have. They are empty, but clients join
//! with them, so their columns are PostgreSQL's.

use super::table::{Definition, no_rows};

const fn empty(name: &'static str, columns: &'static str) -> Definition {
    Definition {
        schema: "pg_catalog",
        name,
        columns,
        rows: no_rows,
    }
}

pub(super) const DEFINITIONS: &[Definition] = &[
    empty("pg_attrdef", "oid oid, adrelid oid, adnum int2, adbin text"),
    empty(
        "pg_auth_members",
        "roleid oid, member oid, grantor oid, admin_option bool",
    ),
    empty(
        "pg_cast",
        "oid oid, castsource oid, casttarget oid, castfunc oid, castcontext text, castmethod text",
    ),
    empty(
        "pg_conversion",
        "oid oid, conname text, connamespace oid, conowner oid, conforencoding int4, \
         contoencoding int4, conproc text, condefault bool",
    ),
    empty(
        "pg_db_role_setting",
        "setdatabase oid, setrole oid, setconfig text[]",
    ),
    empty(
        "pg_default_acl",
        "oid oid, defaclrole oid, defaclnamespace oid, defaclobjtype text, defaclacl text[]",
    ),
    empty(
        "pg_depend",
        "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, \
         deptype text",
    ),
    empty(
        "pg_description",
        "objoid oid, classoid oid, objsubid int4, description text",
    ),
    empty(
        "pg_enum",
        "oid oid, enumtypid oid, enumsortorder int4, enumlabel text",
    ),
    empty(
        "pg_event_trigger",
        "oid oid, evtname text, evtevent text, evtowner oid, evtfoid oid, evtenabled text, \
         evttags text[]",
    ),
    empty(
        "pg_extension",
        "oid oid, extname text, extowner oid, extnamespace oid, extrelocatable bool, \
         extversion text, extconfig oid[], extcondition text[]",
    ),
    empty(
        "pg_foreign_data_wrapper",
        "oid oid, fdwname text, fdwowner oid, fdwhandler oid, fdwvalidator oid, fdwacl text[], \
         fdwoptions text[]",
    ),
    empty(
        "pg_foreign_server",
        "oid oid, srvname text, srvowner oid, srvfdw oid, srvtype text, srvversion text, \
         srvacl text[], srvoptions text[]",
    ),
    empty(
        "pg_foreign_table",
        "ftrelid oid, ftserver oid, ftoptions text[]",
    ),
    empty(
        "pg_inherits",
        "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
    ),
    empty(
        "pg_language",
        "oid oid, lanname text, lanowner oid, lanispl bool, lanpltrusted bool, lanplcallfoid oid, \
         laninline oid, lanvalidator oid, lanacl text[], tableoid oid",
    ),
    empty(
        "pg_largeobject_metadata",
        "oid oid, lomowner oid, lomacl text[]",
    ),
    empty(
        "pg_locks",
        "locktype text, database oid, relation oid, page int4, tuple int2, virtualxid text, \
         transactionid int8, classid oid, objid oid, objsubid int2, virtualtransaction text, \
         pid int4, mode text, granted bool, fastpath bool, waitstart timestamptz",
    ),
    empty(
        "pg_opclass",
        "oid oid, opcmethod oid, opcname text, opcnamespace oid, opcowner oid, opcfamily oid, \
         opcintype oid, opcdefault bool, opckeytype oid, tableoid oid",
    ),
    empty(
        "pg_operator",
        "oid oid, oprname text, oprnamespace oid, oprowner oid, oprkind text, oprcanmerge bool, \
         oprcanhash bool, oprleft oid, oprright oid, oprresult oid, oprcom oid, oprnegate oid, \
         oprcode oid, oprrest oid, oprjoin oid",
    ),
    empty(
        "pg_opfamily",
        "oid oid, opfmethod oid, opfname text, opfnamespace oid, opfowner oid, tableoid oid",
    ),
    empty(
        "pg_partitioned_table",
        "partrelid oid, partstrat text, partnatts int2, partdefid oid, partattrs int2[], \
         partclass oid[], partcollation oid[], partexprs text",
    ),
    empty(
        "pg_policy",
        "oid oid, polname text, polrelid oid, polcmd text, polpermissive bool, polroles oid[], \
         polqual text, polwithcheck text",
    ),
    empty(
        "pg_proc",
        "oid oid, proname text, pronamespace oid, proowner oid, prolang oid, procost int4, \
         prorows int4, provariadic oid, prosupport text, prokind text, prosecdef bool, \
         proleakproof bool, proisstrict bool, proretset bool, provolatile text, \
         proparallel text, pronargs int2, pronargdefaults int2, prorettype oid, \
         proargtypes oid[], proallargtypes oid[], proargmodes text[], proargnames text[], \
         proargdefaults text, protrftypes oid[], prosrc text, probin text, prosqlbody text, \
         proconfig text[], proacl text[]",
    ),
    empty(
        "pg_publication",
        "oid oid, pubname text, pubowner oid, puballtables bool, pubinsert bool, pubupdate bool, \
         pubdelete bool, pubtruncate bool, pubviaroot bool",
    ),
    empty(
        "pg_publication_namespace",
        "oid oid, pnpubid oid, pnnspid oid",
    ),
    empty(
        "pg_publication_rel",
        "oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2[]",
    ),
    empty(
        "pg_sequence",
        "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8, \
         seqcache int8, seqcycle bool",
    ),
    empty(
        "pg_sequences",
        "schemaname text, sequencename text, sequenceowner text, data_type text, \
         start_value int8, min_value int8, max_value int8, increment_by int8, cycle bool, \
         cache_size int8, last_value int8",
    ),
    empty(
        "pg_shdescription",
        "objoid oid, classoid oid, description text",
    ),
    empty(
        "pg_stat_activity",
        "datid oid, datname text, pid int4, leader_pid int4, usesysid oid, usename text, \
         application_name text, client_addr text, client_hostname text, client_port int4, \
         backend_start timestamptz, xact_start timestamptz, query_start timestamptz, \
         state_change timestamptz, wait_event_type text, wait_event text, state text, \
         backend_xid int8, backend_xmin int8, query_id int8, query text, backend_type text",
    ),
    empty(
        "pg_statistic_ext",
        "oid oid, stxrelid oid, stxname text, stxnamespace oid, stxowner oid, \
         stxstattarget int4, stxkeys int2[], stxkind text[], stxexprs text",
    ),
    empty(
        "pg_subscription",
        "oid oid, subdbid oid, subskiplsn text, subname text, subowner oid, subenabled bool, \
         subbinary bool, substream bool, subtwophasestate text, subdisableonerr bool, \
         subconninfo text, subslotname text, subsynccommit text, subpublications text[]",
    ),
    empty(
        "pg_trigger",
        "oid oid, tgrelid oid, tgparentid oid, tgname text, tgfoid oid, tgtype int2, \
         tgenabled text, tgisinternal bool, tgconstrrelid oid, tgconstrindid oid, \
         tgconstraint oid, tgdeferrable bool, tginitdeferred bool, tgnargs int2, tgattr int2[], \
         tgargs text, tgqual text, tgoldtable text, tgnewtable text, tableoid oid",
    ),
    empty(
        "pg_ts_config",
        "oid oid, cfgname text, cfgnamespace oid, cfgowner oid, cfgparser oid",
    ),
    empty(
        "pg_ts_dict",
        "oid oid, dictname text, dictnamespace oid, dictowner oid",
    ),
];
