import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/** What a Java program does with pgJDBC; prints one line a step for the test to compare. */
public final class Smoke {
    public static void main(String[] arguments) throws SQLException {
        try (Connection connection = DriverManager.getConnection(arguments[0], "root", "")) {
            DatabaseMetaData about = connection.getMetaData();
            System.out.println("product " + about.getDatabaseProductName());
            statements(connection);
            prepared(connection);
            error(connection);
            try (Connection other = DriverManager.getConnection(arguments[0], "root", "")) {
                subscribe(connection, other);
            }
            try (ResultSet columns = about.getColumns(null, "public", "j", null)) {
                while (columns.next()) {
                    System.out.println(
                            "column " + columns.getString("COLUMN_NAME")
                                    + " " + columns.getString("TYPE_NAME"));
                }
            }
            metadata(about);
            connection.setReadOnly(true);
            connection.setReadOnly(false);
        }
        System.out.println("done");
    }

    /** What object-relational mappers and database browsers ask. */
    private static void metadata(DatabaseMetaData about) throws SQLException {
        try (ResultSet keys = about.getPrimaryKeys(null, "public", "j")) {
            while (keys.next()) {
                System.out.println(
                        "key " + keys.getString("COLUMN_NAME") + " " + keys.getInt("KEY_SEQ"));
            }
        }
        try (ResultSet schemas = about.getSchemas()) {
            while (schemas.next()) {
                if (schemas.getString("TABLE_SCHEM").equals("public")) {
                    System.out.println("schema public");
                }
            }
        }
        System.out.println("types " + (count(about.getTypeInfo()) > 10));
        System.out.println("keywords " + about.getSQLKeywords().contains("returning"));
    }

    private static int count(ResultSet rows) throws SQLException {
        int count = 0;
        try (rows) {
            while (rows.next()) {
                count++;
            }
        }
        return count;
    }

    private static void statements(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE j (id int PRIMARY KEY, name varchar, price numeric)");
            int count = statement.executeUpdate("INSERT INTO j VALUES (1, 'one', 1.50), (2, NULL, 2)");
            System.out.println("inserted " + count);
            statement.execute("FLUSH");
        }
    }

    /** Five executions and more make the driver switch to named statements and binary results. */
    private static void prepared(Connection connection) throws SQLException {
        String query = "SELECT name, price, id + 1 FROM j WHERE id = ?";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int i = 0; i < 12; i++) {
                statement.setInt(1, i % 2 + 1);
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        System.out.println(
                                "row " + rows.getString(1)
                                        + " " + rows.getBigDecimal(2)
                                        + " " + rows.getInt(3));
                    }
                }
            }
        }
    }

    /** A fetch size makes the driver take a portal's rows in parts, so an endless result can be read. */
    private static void subscribe(Connection connection, Connection other) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(10);
            ResultSet rows = statement.executeQuery("SUBSCRIBE j");
            for (int i = 0; i < 2; i++) {
                rows.next();
                System.out.println("told " + rows.getInt("ruslo_diff") + " " + rows.getInt("id"));
            }
            try (Statement beside = other.createStatement()) {
                for (int i = 3; i < 50; i++) {
                    beside.executeUpdate("INSERT INTO j VALUES (" + i + ", 'more', 0)");
                }
            }
            for (int i = 3; i < 50; i++) {
                rows.next();
                if (rows.getInt("id") != i) {
                    throw new SQLException("told " + rows.getInt("id") + ", not " + i);
                }
            }
            System.out.println("told 47 more");
            rows.close();
        }
        connection.rollback();
        connection.setAutoCommit(true);
    }

    private static void error(Connection connection) {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT * FROM nowhere");
            System.out.println("no error");
        } catch (SQLException expected) {
            System.out.println("error " + expected.getSQLState());
        }
    }
}
