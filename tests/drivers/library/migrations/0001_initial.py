from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Author",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100, unique=True)),
                ("born", models.DateField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Book",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.TextField(db_index=True)),
                ("about", models.JSONField(default=dict)),
                ("lent", models.DateTimeField(null=True)),
                (
                    "author",
                    models.ForeignKey(on_delete=models.CASCADE, related_name="books", to="library.author"),
                ),
            ],
        ),
    ]
